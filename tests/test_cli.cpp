// The command line and its files: precedence, suggestions, ranges, the round trip of run.toml; what the process may use
// of the machine; the progress line.
#include <unistd.h>

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "base/machine.h"
#include "cli/config_file.h"
#include "cli/option_table.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/suggest.h"
#include "cli/training_setup.h"

namespace fs = std::filesystem;
using namespace rn50;

namespace {

/// A folder that goes away with the test.
struct Folder {
    Folder() {
        static int number = 0;
        path = (fs::temp_directory_path() / cat("rn50_cli_", getpid(), "_", number++)).string();
        fs::create_directories(path);
    }
    ~Folder() { fs::remove_all(path); }
    std::string file(const std::string& name, const std::string& text) const {
        const std::string full = path + "/" + name;
        fs::create_directories(fs::path(full).parent_path());
        std::ofstream(full, std::ios::binary) << text;
        return full;
    }
    std::string path;
};

Options parse(const std::vector<std::string>& arguments) {
    return parse_command_line(arguments).options;
}

/// "what | remedy" of the usage error that the arguments give, or "" when they are accepted.
std::string usage_error(const std::vector<std::string>& arguments) {
    try {
        parse_command_line(arguments);
    } catch (const Error& error) {
        CHECK(error.code() == Exit::usage);
        return cat(error.what(), " | ", error.remedy());
    }
    return "";
}

std::string file_error(const std::string& text) {
    const Folder folder;
    const std::string file = folder.file("a.toml", text);
    const std::string said = usage_error({"train", "shop", "--config", file});
    return said.compare(0, file.size(), file) == 0 ? said.substr(file.size()) : said;
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("options: without any, the defaults of the recipe") {
    const Options options = parse({"train", "shop"});
    CHECK(options.command == "train");
    CHECK(options.data == "shop");
    CHECK(options.model == "resnet50");
    CHECK(options.device == "auto");
    CHECK(options.precision == "auto");
    CHECK(options.optimizer == "adamw");
    CHECK(options.lr == 1e-4);
    CHECK(options.weight_decay == 1e-5);
    CHECK(options.epochs == 50);
    CHECK(options.warmup_epochs == 5);
    CHECK(options.dropout == 0.3);
    CHECK(options.batch_size == 64);
    CHECK(options.image_size == 224);
    CHECK(options.seed == 0);
    CHECK(options.crop_scale == std::array<double, 2>{0.08, 1});
    CHECK(options.augment == "crop");
    CHECK(options.resize == "squash");
    CHECK(options.max_bad == 0.01);
    CHECK_FALSE(options.is_set("epochs"));
}

TEST_CASE("options: the command line stands over --config, that over the data's own file, that over the defaults") {
    const Folder folder;
    folder.file("rn50.toml", "epochs = 11\nlr = 0.5\nbatch-size = 7\n");
    const std::string config = folder.file("c.toml", "epochs = 22\nlr = 0.25\n");
    const Options options = parse({"train", folder.path, "--config", config, "--epochs", "33"});
    CHECK(options.epochs == 33);
    CHECK(options.lr == 0.25);
    CHECK(options.batch_size == 7);
    CHECK(options.image_size == 224);
    CHECK(options.origin("epochs") == Origin::command_line);
    CHECK(options.origin("lr") == Origin::config_file);
    CHECK(options.origin("batch-size") == Origin::data_file);
    CHECK(options.origin("image-size") == Origin::built_in);
    REQUIRE(options.files_read.size() == 2);
    CHECK(options.files_read[0] == cat(folder.path, "/rn50.toml (epochs, lr, batch-size)"));
    CHECK(options.files_read[1] == cat(config, " (epochs, lr)"));
}

TEST_CASE("options: a value of a file is checked even where the command line stands over it") {
    const Folder folder;
    folder.file("rn50.toml", "\n\nepochs = 0\n");
    const std::string said = usage_error({"train", folder.path, "--epochs", "3"});
    CHECK(contains(said, "rn50.toml:3: epochs = 0 must be from 1 to 1000000"));
}

TEST_CASE("options: --config may name the data, whose own file is then read too; the command line's DATA wins") {
    const Folder folder, other;
    folder.file("rn50.toml", "epochs = 11\n");
    const std::string config = folder.file("c.toml", cat("data = ", toml_quote(folder.path), "\nlr = 0.25\n"));
    CHECK(parse({"train", "--config", config}).data == folder.path);
    CHECK(parse({"train", "--config", config}).epochs == 11);
    CHECK(parse({"train", other.path, "--config", config}).data == other.path);
    CHECK(parse({"train", other.path, "--config", config}).epochs == 50);
    folder.file("rn50.toml", "data = \"elsewhere\"\n");
    CHECK(contains(usage_error({"train", folder.path}), "rn50.toml:1: data is a path"));
}

TEST_CASE("options: pack, unpack and inspect") {
    const Options packing = parse(
        {"pack", "shop", "out", "--format", "tfrecord", "--longest", "512", "--quality", "85", "--restart-markers"});
    CHECK(packing.data == "shop");
    CHECK(packing.output == "out");
    CHECK(packing.format == "tfrecord");
    CHECK(packing.longest == 512);
    CHECK(packing.restart_markers);
    CHECK_FALSE(parse({"pack", "shop", "out"}).restart_markers);
    CHECK(parse({"unpack", "shop", "out"}).output == "out");
    CHECK(parse({"inspect", "shop", "--verify", "--sample", "0"}).sample == 0);
    CHECK(contains(usage_error({"pack", "shop"}), "OUT is missing"));
    CHECK(contains(usage_error({"pack", "shop", "out", "--format", "zip"}), "must be one of folder|webdataset"));
    CHECK(parse({"train", "shop"}).decode == "auto");
    CHECK(contains(usage_error({"train", "shop", "--decode", "gpu", "--cache-mb", "9"}),
                   "does nothing beside --cache-mb"));
    CHECK(contains(usage_error({"train", "shop", "--decode", "gpu", "--resize", "letterbox"}), "does nothing beside"));
    CHECK(contains(usage_error({"train", "shop", "--decode", "gpu", "--augment", "flip"}), "does nothing beside"));
    CHECK(parse({"train", "shop", "--decode", "whole", "--augment", "flip"}).decode == "whole");
    CHECK(contains(usage_error({"pack", "a", "b", "--encode", "png", "--quality", "80"}),
                   "--quality does nothing beside --encode png"));
    CHECK(parse({"pack", "a", "b", "--encode", "jpeg", "--quality", "80"}).encode == "jpeg");
    CHECK(
        contains(usage_error({"preview", "shop", "--out", "x.png", "--decode", "gpu"}), "does nothing beside preview"));
    CHECK(contains(usage_error({"pack", "shop", "out", "--longest", "9", "--shortest", "9"}), "exclude each other"));
    CHECK(contains(usage_error({"pack", "shop", "out", "--quality", "9"}), "does nothing beside"));
    CHECK(contains(usage_error({"unpack", "shop", "out", "--format", "lmdb"}), "is an option of pack, not of unpack"));
    CHECK(contains(usage_error({"train", "shop", "--label-offset", "2"}), "must be one of 0|1"));
}

TEST_CASE("options: unknown ones are refused with the nearest that exists") {
    CHECK(usage_error({"train", "shop", "--epoch", "5"}) == "unknown option --epoch | did you mean --epochs?");
    CHECK(usage_error({"train", "shop", "--epohcs=5"}) == "unknown option --epohcs | did you mean --epochs?");
    CHECK(usage_error({"train", "shop", "--batch_size", "5"}) ==
          "unknown option --batch_size | did you mean --batch-size?");
    CHECK(usage_error({"train", "shop", "--label-smo", "5"}) ==
          "unknown option --label-smo | did you mean --label-smoothing?");
    CHECK(usage_error({"train", "shop", "--qwertyuiop"}) ==
          "unknown option --qwertyuiop | rn50 train --help lists the options");
    CHECK(usage_error({"train", "shop", "-epochs", "5"}) == "unknown option -epochs | did you mean --epochs?");
    CHECK(usage_error({"eval", "c", "shop", "--epochs", "5"}) ==
          "--epochs is an option of train, not of eval | rn50 eval --help lists what there is");
    CHECK(usage_error({"trian", "data"}) == "unknown command trian | did you mean rn50 train?");
    CHECK(usage_error({"export", "c"}) == "unknown command export | rn50 --help lists the commands");
    CHECK(contains(usage_error({"--epochs", "3", "train"}), "the command comes before --epochs"));
}

TEST_CASE("options: a wrong value is told with its option and what is allowed") {
    const auto told = [](const char* option, const char* value) {
        return usage_error({"train", "shop", option, value});
    };
    CHECK(contains(told("--epochs", "ten"), "--epochs ten is not a whole number"));
    CHECK(contains(told("--epochs", "1.5"), "--epochs 1.5 is not a whole number"));
    CHECK(contains(told("--epochs", "0"), "--epochs 0 must be from 1 to 1000000"));
    CHECK(contains(told("--epochs", "99999999999999999999"), "is out of range"));
    CHECK(contains(told("--epochs", ""), "--epochs \"\" is not a whole number"));
    CHECK(contains(told("--lr", "nan"), "--lr nan is not a number"));
    CHECK(contains(told("--lr", "inf"), "--lr inf is not a number"));
    CHECK(contains(told("--lr", "1e-3x"), "--lr 1e-3x is not a number"));
    CHECK(contains(told("--lr", "-1"), "--lr -1 must be from 0 to 1000"));
    CHECK(contains(told("--seed", "-1"), "--seed -1 must be at least 0"));
    CHECK(contains(told("--dropout", "1"), "--dropout 1 must be from 0 to 0.99"));
    CHECK(contains(told("--device", "gpu"), "--device gpu must be one of auto|cpu|cuda"));
    CHECK(contains(told("--crop-scale", "0.5"), "--crop-scale 0.5 must be two numbers, MIN,MAX"));
    CHECK(contains(told("--crop-scale", "0.9,0.1"), "with the smaller number first"));
    CHECK(contains(told("--crop-scale", "0,1"), "must be from 0.001 to 1"));
    CHECK(contains(told("--gpus", "0"), "--gpus 0 must be at least 1"));
    CHECK(contains(told("--gpus", "two"), "--gpus two must be a number of GPUs, all, or a list"));
    CHECK(contains(told("--gpus", "-1"), "must be a number of GPUs"));
    CHECK(contains(told("--gpus", ""), "must be a number of GPUs"));
    CHECK(contains(told("--gpus", "0,1,0"), "must name each GPU once"));
    CHECK(contains(told("--gpus", "0,,1"), "must be a number of GPUs"));
    CHECK(contains(told("--ranks", "0"), "--ranks 0 must be from 1 to 65536"));
    CHECK(contains(usage_error({"train", "shop", "--epochs"}), "--epochs"));
    CHECK(contains(told("--randaugment", "2"), "--randaugment 2 must be two numbers, N,M"));
    CHECK(contains(told("--randaugment", "0,9"), "N from 1 to 8 and M from 0 to 30"));
    CHECK(contains(told("--randaugment", "1.5,9"), "must be two whole numbers"));
    CHECK(contains(told("--randaugment", "2,31"), "must be from 0 to 30"));
    CHECK(contains(told("--channels", "2"), "--channels 2 must be one of 1|3"));
    CHECK(told("--channels", "1").empty());
    CHECK(contains(told("--erasing-fill", "black"), "must be one of mean|noise"));
    CHECK(told("--epochs", "+3").empty());
    CHECK(told("--lr", "1e-3").empty());
    for (const char* const gpus : {"1", "2", "all", "0,2"})
        CHECK(told("--gpus", gpus).empty());
}

TEST_CASE("options: what must be there and what has no place") {
    CHECK(usage_error({"train"}) == "DATA is missing | usage: rn50 train DATA [options]");
    CHECK(contains(usage_error({"eval"}), "CHECKPOINT is missing"));
    CHECK(contains(usage_error({"eval", "c"}), "DATA is missing"));
    CHECK(contains(usage_error({"predict", "c"}), "PATH is missing"));
    CHECK(parse({"bench", "loader"}).data.empty());
    CHECK(contains(usage_error({"preview", "--out", "x.png"}), "DATA is missing"));
    CHECK(contains(usage_error({"preview", "d"}), "--out FILE.png is missing"));
    CHECK(contains(usage_error({"bench", "steps"}), "does not know \"steps\""));
    CHECK(contains(usage_error({"train", "shop", "more"}), "what is \"more\" for?"));
    CHECK(contains(usage_error({"doctor", "more"}), "what is \"more\" for?"));
    const Options predict = parse({"predict", "c", "a.jpg", "--json", "b.jpg"});
    CHECK(predict.checkpoint == "c");
    CHECK(predict.paths == std::vector<std::string>{"a.jpg", "b.jpg"});
    CHECK(predict.json);
    CHECK(parse({"predict", "c", "--", "-odd.jpg"}).paths == std::vector<std::string>{"-odd.jpg"});
    CHECK(parse({"bench"}).bench == "step");
    CHECK(parse({"bench", "comm", "--ranks", "2", "--wire", "bf16"}).ranks == 2);
}

TEST_CASE("options: what another option makes idle is refused on the command line, not in a file") {
    CHECK(contains(usage_error({"train", "d", "--augment", "none", "--flip", "both"}), "--flip does nothing"));
    CHECK(contains(usage_error({"train", "d", "--augment", "flip", "--crop-scale", "0.5,1"}),
                   "--crop-scale does nothing"));
    CHECK(contains(usage_error({"train", "d", "--momentum", "0.8"}), "--momentum does nothing"));
    CHECK(contains(usage_error({"train", "d", "--augment", "none", "--blur", "2"}), "--blur does nothing"));
    CHECK(contains(usage_error({"train", "d", "--randaugment", "2,9"}), "does nothing beside --augment crop"));
    CHECK(usage_error({"train", "d", "--augment", "randaugment", "--randaugment", "3,2"}).empty());
    CHECK(contains(usage_error({"train", "d", "--erasing-fill", "noise"}), "does nothing beside --erasing 0"));
    CHECK(contains(usage_error({"predict", "c", "p", "--json", "--csv"}), "exclude each other"));
    CHECK(contains(usage_error({"train", "d", "--resume", "auto"}), "needs the run's folder"));
    const Folder folder;
    folder.file("rn50.toml", "crop-scale = [0.25, 1.0]\n");
    CHECK(usage_error({"train", folder.path, "--augment", "none"}).empty());
}

TEST_CASE("options: files are flat TOML, and each complaint names file and line") {
    CHECK(file_error("epochs = 3\nepoch = 4\n") == ":2: unknown option epoch | did you mean epochs?");
    CHECK(file_error("batch_size = 3") == ":1: unknown option batch_size | did you mean batch-size?");
    CHECK(file_error("# recipe\n\n[train]\n") ==
          ":3: sections are not used here | write each option as `name = value`, without [sections]");
    CHECK(contains(file_error("epochs 3"), ":1: no '=' behind epochs"));
    CHECK(contains(file_error("epochs = 3\nlr = 1\nepochs = 4"), ":3: epochs stands twice, first in line 1"));
    CHECK(contains(file_error("epochs ="), ":1: epochs has no value"));
    CHECK(contains(file_error("epochs = 3 4"), ":1: something follows the value of epochs"));
    CHECK(contains(file_error("epochs = \"3\""), ":1: epochs takes no quotes"));
    CHECK(contains(file_error("optimizer = sgd"), ":1: optimizer = sgd lacks quotes | write optimizer = \"sgd\""));
    CHECK(contains(file_error("optimizer = \"sgd"), "the closing quote is missing"));
    CHECK(contains(file_error("optimizer = \"\\q\""), "means nothing"));
    CHECK(contains(file_error("optimizer = \"adam\""), ":1: optimizer = adam must be one of adamw|sgd"));
    CHECK(contains(file_error("crop-scale = [0.5"), "does not end on its line"));
    CHECK(contains(file_error("crop-scale = [0.5]"), "must be two numbers"));
    CHECK(contains(file_error("json = true"), ":1: json belongs on the command line"));
    CHECK(contains(file_error("config = \"x\""), ":1: config belongs on the command line"));
    CHECK(contains(file_error("init = /weights"), "text stands in quotes"));
    CHECK(contains(file_error("sync-bn = yes"), "must be true or false"));
    CHECK(
        file_error("\xEF\xBB\xBF# bom\r\n epochs\t=  1_000 # a comment\r\nout = \"runs/#3\"\r\ninit='C:\\w'").empty());
    CHECK(file_error("").empty());

    const auto entries = parse_config("a = \"x # \\\"y\\\"\" # z\nb = [ 1 , 2.5,]\nc='\\n'", "f");
    REQUIRE(entries.size() == 3);
    CHECK(entries[0].parts == std::vector<std::string>{"x # \"y\""});
    CHECK(entries[1].parts == std::vector<std::string>{"1", "2.5"});
    CHECK(entries[2].parts == std::vector<std::string>{"\\n"});
    CHECK(entries[2].line == 3);
}

TEST_CASE("options: a file that cannot be read is an error of the data, by name") {
    try {
        parse({"train", "shop", "--config", "/does/not/exist.toml"});
        FAIL("accepted");
    } catch (const Error& error) {
        CHECK(error.code() == Exit::data);
        CHECK(contains(error.what(), "/does/not/exist.toml: No such file"));
    }
}

TEST_CASE("options: run.toml repeats the run") {
    const Folder folder;
    const Options first = parse({"train",
                                 "some \"odd\" \\ data",
                                 "--lr",
                                 "0.1",
                                 "--crop-scale",
                                 "0.3333333333333333,0.9",
                                 "--optimizer",
                                 "sgd",
                                 "--weight-decay",
                                 "1e-5",
                                 "--epochs",
                                 "7",
                                 "--seed",
                                 "123456789012345",
                                 "--init",
                                 "w#1.safetensors",
                                 "--flip",
                                 "both",
                                 "--resize",
                                 "letterbox",
                                 "--out",
                                 "runs/a",
                                 "--label-smoothing",
                                 "0.1"});
    const std::string text = to_toml(first);
    const Options again = parse({"train", "--config", folder.file("run.toml", text), "--out", "runs/b"});
    CHECK(again.data == first.data);
    CHECK(again.lr == 0.1);
    CHECK(again.crop_scale[0] == 0.3333333333333333);
    CHECK(again.seed == 123456789012345);
    CHECK(again.init == "w#1.safetensors");
    CHECK(again.flip == "both");
    CHECK(again.out == "runs/b");
    CHECK(to_toml(again) == text);
    CHECK(contains(text, "\nepochs = 7\n"));
    CHECK(contains(text, "\nlr = 0.1\n"));
    CHECK(contains(text, "\nweight-decay = 1e-5\n"));
    CHECK(contains(text, "\nclip-norm = 0.0\n"));
    CHECK_FALSE(contains(text, "\nout = "));
    // All that may stand in a file and belongs to train is written.
    for (const OptionRow& row : option_table()) {
        const std::string name = row.name;
        const bool expected = (row.commands & in_train) && row.in_files && name != "out" && name != "resume";
        CHECK_MESSAGE(contains(text, cat("\n", name, " = ")) == expected, name);
    }
}

TEST_CASE("options: a resumed run keeps its own, save what cannot change the result") {
    const Folder folder;
    const Options first = parse({"train", "shop", "--epochs", "7", "--lr", "0.1", "--workers", "3"});
    const std::string file = folder.file("run.toml", to_toml(first));
    const Options same = resumed_options(parse({"train", "--resume", "auto", "--out", folder.path, "--config", file}),
                                         stored_options(file));
    CHECK(same.epochs == 7);

    Options asked =
        parse({"train", "shop", "--out", "o", "--resume", "auto", "--workers", "1", "--max-steps", "9", "--lr", "0.1"});
    const Options resumed = resumed_options(asked, stored_options(file));
    CHECK(resumed.epochs == 7);
    CHECK(resumed.lr == 0.1);
    CHECK(resumed.workers == 1);
    CHECK(resumed.max_steps == 9);
    CHECK(resumed.out == "o");
    CHECK(resumed.data == "shop");

    asked = parse({"train", "shop", "--out", "o", "--resume", "auto", "--epochs", "8"});
    CHECK_THROWS_WITH_AS(resumed_options(asked, stored_options(file)), "the run had epochs = 7 and cannot go on with 8",
                         Error);

    // A data set's file that was edited since does not change a run that goes on.
    folder.file("rn50.toml", "epochs = 99\n");
    CHECK(
        resumed_options(parse({"train", folder.path, "--out", "o", "--resume", "auto"}), stored_options(file)).epochs ==
        7);
}

TEST_CASE("options: a run resumed in another number of ranks keeps the pictures of a step") {
    const auto stored = [](int64_t ranks, int64_t batch, int64_t accumulate) {
        Options options;
        options.ranks = ranks;
        options.batch_size = batch;
        options.accumulate = accumulate;
        for (const char* name : {"ranks", "batch-size", "accumulate", "sync-bn", "mixup"})
            options.origins[name] = Origin::config_file;
        return options;
    };
    const auto resumed = [](const Options& before, std::vector<std::string> with) {
        with.insert(with.begin(), {"train", "--resume", "auto", "--out", "o"});
        const Options now = resumed_options(parse(with), before);
        CHECK(now.pictures_a_step() == before.pictures_a_step());
        return std::array<int64_t, 3>{now.ranks, now.batch_size, now.accumulate};
    };
    using Shares = std::array<int64_t, 3>;
    const Options two = stored(2, 8, 1), added = stored(2, 6, 4);
    CHECK(resumed(two, {}) == Shares{2, 8, 1});
    CHECK(resumed(two, {"--ranks", "1"}) == Shares{1, 16, 1});
    CHECK(resumed(two, {"--ranks", "4"}) == Shares{4, 4, 1});
    CHECK(resumed(two, {"--ranks", "1", "--batch-size", "8"}) == Shares{1, 8, 2});
    CHECK(resumed(two, {"--ranks", "1", "--accumulate", "4"}) == Shares{1, 4, 4});
    CHECK(resumed(two, {"--batch-size", "4"}) == Shares{2, 4, 2});
    CHECK(resumed(added, {"--ranks", "4"}) == Shares{4, 3, 4});
    CHECK(resumed(added, {"--ranks", "8"}) == Shares{8, 1, 6});  // six pictures each: not by four
    CHECK(resumed(added, {"--ranks", "48"}) == Shares{48, 1, 1});
    const auto refused = [&](const std::vector<std::string>& with, const std::string& words) {
        CHECK_THROWS_WITH_AS(resumed(two, with), doctest::Contains(words.c_str()), Error);
    };
    refused({"--ranks", "3"}, "the run had 2 ranks of 8, 16 pictures in a step, and cannot go on with 3 ranks");
    refused({"--ranks", "4", "--batch-size", "8"}, "cannot go on with 4 ranks of 8");
    refused({"--ranks", "4", "--batch-size", "3"}, "cannot go on with 4 ranks of 3");
    refused({"--accumulate", "3"}, "3 batches a step");
    refused({"--batch-size", "8", "--accumulate", "2"}, "of 8, 2 batches a step");

    Options four = stored(4, 4, 1);
    CHECK(sharing_changes(two, two).empty());
    REQUIRE(sharing_changes(two, four).size() == 2);
    CHECK(contains(sharing_changes(two, four)[0], "4 ranks of 4, before by 2 ranks of 8"));
    CHECK(contains(sharing_changes(two, four)[1], "batch norm sees 4 pictures at a time from here on, before 8"));
    Options all = two;
    all.sync_bn = four.sync_bn = true;
    CHECK(sharing_changes(all, four).size() == 1);
    four.mixup = 0.2;
    CHECK(sharing_changes(all, four).size() == 2);
}

TEST_CASE("options: --help lists every option of the command with its default") {
    for (const CommandRow& command : command_table()) {
        const std::string help = parse_command_line({command.name, "--help"}).text;
        const Options built_in;
        for (const OptionRow& row : option_table()) {
            const bool listed = contains(help, cat("--", row.name, " "));
            CHECK_MESSAGE(listed == ((row.commands & command.bit) != 0), command.name, " ", row.name);
            if (row.commands & command.bit) CHECK(contains(help, cat("(default: ", show_value(row, built_in), ")")));
        }
    }
    CHECK(contains(parse_command_line({}).text, "rn50 COMMAND"));
    CHECK(contains(parse_command_line({"--version"}).text, "rn50 "));
}

TEST_CASE("options: auto and mixed precision are what the device multiplies, and what it lacks is refused by name") {
    DeviceInfo device;
    device.kind = "cpu";
    CHECK(resolve_precision("auto", device) == Precision::fp32);
    CHECK(resolve_precision("mixed", device) == Precision::fp32);
    device.bf16 = true;
    CHECK(resolve_precision("auto", device) == Precision::fp32);
    CHECK(resolve_precision("mixed", device) == Precision::bf16);
    CHECK_THROWS_AS(resolve_precision("fp16", device), Error);
    device.kind = "cuda";
    device.fp16 = device.tf32 = true;
    CHECK(resolve_precision("auto", device) == Precision::fp16);
    CHECK(resolve_precision("mixed", device) == Precision::fp16);
    CHECK(resolve_precision("tf32", device) == Precision::tf32);
    device.fp16 = device.bf16 = false;
    CHECK(resolve_precision("mixed", device) == Precision::fp32);
}

TEST_CASE("suggestions: edit distances and what is near enough") {
    CHECK(edit_distance("", "abc") == 3);
    CHECK(edit_distance("kitten", "sitting") == 3);
    CHECK(edit_distance("epohcs", "epochs") == 1);
    CHECK(edit_distance("same", "same") == 0);
    CHECK(nearest("lr", {"lrx", "seed"}) == "lrx");
    CHECK(nearest("zz", {"lr", "seed"}).empty());
}

TEST_CASE("machine: control groups of both versions set limits, the nearest and those above it") {
    const Folder folder;
    const std::string root = folder.path + "/";
    folder.file("proc/meminfo", "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    8000000 kB\n");
    HostMemory memory = memory_of_process(root);
    CHECK(memory.total == 16000000LL * 1024);
    CHECK(memory.limit == 0);
    CHECK(memory.usable() == 8000000LL * 1024);
    CHECK(cores_of_process(root).quota == 0);
    CHECK(cores_of_process(root).usable() >= 1);

    folder.file("proc/self/cgroup", "0::/jobs/one\n");
    folder.file("sys/fs/cgroup/jobs/cpu.max", "150000 100000\n");
    folder.file("sys/fs/cgroup/jobs/one/cpu.max", "max 100000\n");
    folder.file("sys/fs/cgroup/jobs/one/memory.max", "4000000000\n");
    folder.file("sys/fs/cgroup/jobs/one/memory.current", "3000000000\n");
    folder.file("sys/fs/cgroup/jobs/one/memory.stat", "anon 5\ninactive_file 1000000000\n");
    folder.file("sys/fs/cgroup/jobs/memory.max", "max\n");
    memory = memory_of_process(root);
    CHECK(memory.limit == 4000000000LL);
    CHECK(memory.usable() == 2000000000LL);
    CHECK(cores_of_process(root).quota == 1.5);

    folder.file("proc/self/cgroup", "4:memory:/m\n3:cpu,cpuacct:/c\n");
    folder.file("sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "50000\n");
    folder.file("sys/fs/cgroup/cpu/c/cpu.cfs_period_us", "100000\n");
    folder.file("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    folder.file("sys/fs/cgroup/memory/m/memory.limit_in_bytes", "2000000000\n");
    folder.file("sys/fs/cgroup/memory/m/memory.usage_in_bytes", "500000000\n");
    fs::remove_all(folder.path + "/sys/fs/cgroup/jobs");
    CHECK(cores_of_process(root).quota == 0.5);
    CHECK(cores_of_process(root).usable() == 1);
    CHECK(memory_of_process(root).usable() == 1500000000LL);
}

TEST_CASE("machine: NVIDIA's graphics devices are counted on the bus, not their sound, nor others' devices") {
    const Folder folder;
    const std::string root = folder.path + "/", bus = "sys/bus/pci/devices/0000:";
    CHECK(nvidia_devices(root) == 0);
    const auto device = [&](const char* slot, const char* vendor, const char* device_class) {
        folder.file(cat(bus, slot, "/vendor"), vendor);
        folder.file(cat(bus, slot, "/class"), device_class);
    };
    device("01:00.0", "0x10de\n", "0x030000\n");
    device("01:00.1", "0x10de\n", "0x040300\n");
    device("02:00.0", "0x10de\n", "0x030200\n");
    device("03:00.0", "0x8086\n", "0x030000\n");
    CHECK(nvidia_devices(root) == 2);
    CHECK(nvidia_driver_release(root) == "");
    folder.file(
        "proc/driver/nvidia/version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version:\n");
    CHECK(nvidia_driver_release(root) == "535.104.05");
}

TEST_CASE("machine: the release of NVIDIA's driver") {
    const Folder folder;
    CHECK(nvidia_driver_release(folder.path + "/").empty());
    const std::pair<const char*, const char*> modules[] = {
        {"NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version:\n",
         "535.183.01"},
        {"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build  (root@buildd)\n",
         "570.124.06"},
        {"nothing of the kind\n", ""}};
    for (const auto& [text, release] : modules) {
        folder.file("proc/driver/nvidia/version", text);
        CHECK(nvidia_driver_release(folder.path + "/") == release);
    }
}

TEST_CASE("progress: the line drops what matters least until it fits") {
    const ProgressNumbers numbers{3, 18, 25, 100, 1.23456, 1e-4, 341.2, 0.021, 3723};
    CHECK(progress_line(numbers, 200) ==
          "epoch 3/18  step 25/100  loss 1.2346  lr 1.00e-04  341 img/s  wait 2%  ETA 1:02:03");
    for (int width = 80; width > 12; --width)
        CHECK(static_cast<int>(progress_line(numbers, width).size()) < width);
    const std::string narrow = progress_line(numbers, 45);
    CHECK(narrow == "epoch 3/18  loss 1.2346  ETA 1:02:03");
    CHECK(clock_time(59.6) == "1:00");
    CHECK(clock_time(7325) == "2:02:05");
    CHECK(clock_time(0) == "0:00");
}
