// Where a process stands among the ranks of a run, by the variables of those who start it.
#include <doctest/doctest.h>

#include <map>

#include "comm/place.h"
#include "rank_support.h"

using namespace rn50;

namespace {

std::optional<Place> place_in(const std::map<std::string, std::string>& variables) {
    return place_from([&](const std::string& name) {
        const auto found = variables.find(name);
        return found == variables.end() ? std::string() : found->second;
    });
}

}  // namespace

TEST_CASE("a process finds its place in the variables of torchrun, Slurm and Open MPI") {
    CHECK(!place_in({}));
    CHECK(!place_in({{"RANK", "0"}, {"WORLD_SIZE", "1"}}));
    CHECK(!place_in({{"RANK", "0"}}));

    const auto torchrun = place_in({{"RANK", "5"},
                                    {"WORLD_SIZE", "8"},
                                    {"LOCAL_RANK", "1"},
                                    {"LOCAL_WORLD_SIZE", "4"},
                                    {"MASTER_ADDR", "node0"},
                                    {"MASTER_PORT", "4000"},
                                    {"SLURM_PROCID", "7"},
                                    {"SLURM_NTASKS", "9"}});
    REQUIRE(torchrun);
    CHECK(torchrun->rank == 5);
    CHECK(torchrun->size == 8);
    CHECK(torchrun->local_rank == 1);
    CHECK(torchrun->local_size == 4);
    CHECK(torchrun->address == "node0");
    CHECK(torchrun->port == 4001);
    CHECK(torchrun->source == "RANK");

    const auto slurm = place_in({{"SLURM_PROCID", "3"},
                                 {"SLURM_NTASKS", "4"},
                                 {"SLURM_LOCALID", "1"},
                                 {"SLURM_JOB_ID", "71"},
                                 {"SLURM_STEP_ID", "0"},
                                 {"SLURM_NODEID", "1"},
                                 {"SLURM_STEP_TASKS_PER_NODE", "1,3"},
                                 {"SLURM_STEP_NODELIST", "gpu[07-08,12]"},
                                 {"RN50_TOKEN", "t"}});
    REQUIRE(slurm);
    CHECK(slurm->local_size == 3);
    CHECK(slurm->run == "Slurm step 71.0");
    CHECK(slurm->rank == 3);
    CHECK(slurm->local_rank == 1);
    CHECK(slurm->address == "gpu07");
    CHECK(slurm->token == "t");

    const auto mpi = place_in({{"OMPI_COMM_WORLD_RANK", "1"},
                               {"OMPI_COMM_WORLD_SIZE", "2"},
                               {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                               {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
    REQUIRE(mpi);
    CHECK(mpi->rank == 1);
    CHECK(mpi->address == "127.0.0.1");
    CHECK(mpi->port == 29501);  // without a name of the run
}

TEST_CASE("two runs of a launcher do not take each other's port or ranks; the port stays below those of the system") {
    const auto step = [](const std::string& job, const std::string& id, const std::string& rank = "0") {
        return *place_in({{"SLURM_PROCID", rank},
                          {"SLURM_NTASKS", "4"},
                          {"SLURM_JOB_ID", job},
                          {"SLURM_STEP_ID", id},
                          {"SLURM_JOB_NODELIST", "n[1-2]"}});
    };
    std::map<int, int> ports;
    for (int job = 100; job < 200; ++job) {
        const Place place = step(std::to_string(job), "0");
        CHECK(place.port > 10000);
        CHECK(place.port <= 30000);
        ++ports[place.port];
    }
    CHECK(ports.size() > 95);
    CHECK(step("7", "0").port == step("7", "0", "3").port);
    CHECK(step("7", "0").port != step("7", "1").port);
    CHECK(step("7", "0").run != step("7", "1").run);
    CHECK(place_in({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"TORCHELASTIC_RUN_ID", "a"}})->run == "torchrun's run a");
    const auto mpi = place_in({{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}, {"PMIX_NAMESPACE", "9"}});
    CHECK(mpi->run == "Open MPI's job 9");
    CHECK(mpi->port != 29501);
    CHECK(place_in({{"OMPI_COMM_WORLD_RANK", "1"},
                    {"OMPI_COMM_WORLD_SIZE", "2"},
                    {"PMIX_NAMESPACE", "9"},
                    {"MASTER_PORT", "77"}})
              ->port == 78);
}

TEST_CASE("the script of a batch job is no task of it, and mpirun's processes are not tasks of its daemons' step") {
    const std::map<std::string, std::string> batch{
        {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}, {"SLURM_JOB_ID", "7"}, {"SLURM_LOCALID", "0"}};
    CHECK(!place_in(batch));
    std::map<std::string, std::string> inner = batch;
    inner.insert({{"SLURM_STEP_ID", "1"},
                  {"SLURM_STEP_NODELIST", "n2"},
                  {"SLURM_JOB_NODELIST", "n[1-2]"},
                  {"OMPI_COMM_WORLD_RANK", "5"},
                  {"OMPI_COMM_WORLD_SIZE", "8"}});
    const auto place = place_in(inner);
    REQUIRE(place);
    CHECK(place->rank == 5);
    CHECK(place->address == "n1");
}

TEST_CASE("mpirun with a rank a host: rank 0 is looked for where mpirun listens") {
    std::map<std::string, std::string> variables{{"OMPI_COMM_WORLD_RANK", "1"},
                                                 {"OMPI_COMM_WORLD_SIZE", "2"},
                                                 {"OMPI_COMM_WORLD_LOCAL_SIZE", "1"},
                                                 {"OMPI_MCA_orte_hnp_uri", "99.0;tcp://10.1.2.3,192.168.0.1:40000"}};
    CHECK(place_in(variables)->address == "10.1.2.3");
    variables["MASTER_ADDR"] = "there";
    CHECK(place_in(variables)->address == "there");
    variables.erase("MASTER_ADDR");
    variables.erase("OMPI_MCA_orte_hnp_uri");
    CHECK(contains(what_of([&] { place_in(variables); }), "none of them is said to hold rank 0"));
}

TEST_CASE("the tasks of a node in Slurm's lists") {
    CHECK(tasks_on_node("2", 0) == 2);
    CHECK(tasks_on_node("2(x3),1", 2) == 2);
    CHECK(tasks_on_node("2(x3),1", 3) == 1);
    CHECK(tasks_on_node("2(x3),1", 4) == 0);
    CHECK(tasks_on_node("8,4(x2)", 2) == 4);
    for (const char* const wrong : {"", "x", "2(", "2(x", "2(x3", "2x3", "2(y3)", "(x2)", "2(x3)4"})
        CHECK(tasks_on_node(wrong, 0) == 0);
}

TEST_CASE("places that cannot be are refused with the variable's name") {
    CHECK(contains(what_of([] { place_in({{"RANK", "2"}, {"WORLD_SIZE", "2"}}); }), "RANK=2"));
    CHECK(contains(what_of([] { place_in({{"RANK", "x"}, {"WORLD_SIZE", "2"}}); }), "RANK=x"));
    CHECK(contains(what_of([] { place_in({{"RANK", "0"}, {"WORLD_SIZE", "-3"}}); }), "WORLD_SIZE=-3"));
    CHECK(contains(what_of([] {
                       place_in({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "65535"}});
                   }),
                   "MASTER_PORT=65535"));
    CHECK(contains(what_of([] {
                       place_in({{"OMPI_COMM_WORLD_RANK", "0"},
                                 {"OMPI_COMM_WORLD_SIZE", "4"},
                                 {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
                   }),
                   "none of them is said to hold rank 0"));
}

TEST_CASE("the first host of Slurm's lists") {
    CHECK(first_host("n1") == "n1");
    CHECK(first_host("n1,n2") == "n1");
    CHECK(first_host("node[03-07,9],other") == "node03");
    CHECK(first_host("a,node[1-2]") == "a");
    CHECK(first_host("rack[1,4]-n") == "rack1-n");
    CHECK(first_host("rack[0-1]node[2-3],other") == "rack0node2");
    CHECK(first_host("node[3") == "");
    CHECK(first_host("") == "");
}
