// Where this process stands among the ranks of a run, as whoever started it says in the environment.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace rn50 {

/// One process of a run of several.
struct Place {
    int rank = 0, size = 1;              ///< among all
    int local_rank = 0, local_size = 1;  ///< on this machine; local_size 1 where it is not told
    std::string address = "127.0.0.1";   ///< of rank 0's machine
    int port = 0;                        ///< on which rank 0 listens: MASTER_PORT + 1
    std::string run;                     ///< which of a launcher's runs this is: "Slurm step 7.0"; "": not told
    std::string token;                   ///< who does not know it is not let in; "": nobody is asked
    std::string source;                  ///< "RANK", "SLURM_PROCID" or "OMPI_COMM_WORLD_RANK": who says so
};

/// Value of an environment variable, "" when it is not set.
using Environment = std::function<std::string(const std::string&)>;
Environment process_environment();

/// From RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE (torchrun's names, and those of --ranks), else
/// OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK, _LOCAL_SIZE, else, within a Slurm step, SLURM_PROCID, SLURM_NTASKS,
/// SLURM_LOCALID and SLURM_STEP_TASKS_PER_NODE. Absent when none of them is set, or a job of one.
///
/// Rank 0 is at MASTER_ADDR, else at the first host of the Slurm step, else where mpirun was started, else here.
/// MASTER_PORT is 29500 unless set; in Slurm and Open MPI a number from 10000 to 29999 made from the run's, so that two
/// runs do not meet on one. RN50_TOKEN is the token. Throws Error(Exit::usage) for values that cannot be.
std::optional<Place> place_from(const Environment& environment);

/// 32 hexadecimal digits that nobody guesses. Throws Error(Exit::device) where the system gives none.
std::string fresh_token();

/// "node[03-07,9],other" -> "node03": the first host of a list as Slurm writes it.
std::string first_host(const std::string& list);

/// Tasks on node `node` of a list as Slurm writes it, "2(x3),1"; 0 where the list does not tell.
int tasks_on_node(const std::string& list, int node);

/// Whether an address leads nowhere but to this machine.
bool is_loopback(const std::string& address);

}  // namespace rn50
