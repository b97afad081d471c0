// Atomic files under a full disk, a kill in the middle and wrong paths; the run's folder and its logs.
#include <doctest/doctest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "train/run_dir.h"

namespace fs = std::filesystem;
using namespace rn50;

namespace {

/// A folder of its own that is gone at the end of the test.
struct Folder {
    Folder() {
        std::string name = (fs::temp_directory_path() / "rn50-files-XXXXXX").string();
        path = mkdtemp(name.data());
    }
    ~Folder() { fs::remove_all(path); }
    std::string operator/(const std::string& name) const { return path + "/" + name; }
    std::vector<std::string> names() const {
        std::vector<std::string> found;
        for (const auto& entry : fs::directory_iterator(path))
            found.push_back(entry.path().filename().string());
        return found;
    }
    std::string path;
};

/// Within its scope no file may grow beyond `bytes`: writes are cut short there, as on a full disk.
struct FileSizeLimit {
    explicit FileSizeLimit(rlim_t bytes) {
        previous_handler = std::signal(SIGXFSZ, SIG_IGN);
        getrlimit(RLIMIT_FSIZE, &previous);
        const rlimit limit{bytes, previous.rlim_max};
        REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    }
    ~FileSizeLimit() {
        setrlimit(RLIMIT_FSIZE, &previous);
        std::signal(SIGXFSZ, previous_handler);
    }
    rlimit previous{};
    void (*previous_handler)(int) = nullptr;
};

Exit code_of(const std::function<void()>& action, std::string* message = nullptr) {
    try {
        action();
    } catch (const Error& error) {
        if (message) *message = error.what();
        CHECK(!error.remedy().empty());
        return error.code();
    }
    return Exit::ok;
}

std::vector<nlohmann::json> json_lines(const std::string& path) {
    std::vector<nlohmann::json> lines;
    std::ifstream in(path);
    for (std::string line; std::getline(in, line);)
        lines.push_back(nlohmann::json::parse(line));
    return lines;
}

MetricsLine step_line(int64_t step) {
    MetricsLine line;
    line.event = "step";
    line.step = step;
    line.loss = 1.0 / static_cast<double>(step);
    return line;
}

}  // namespace

TEST_CASE("files: an atomic file appears whole, and only with its commit") {
    const Folder folder;
    const std::string path = folder / "a";
    write_file_atomic(path, "old");
    {
        AtomicFile file(path);
        file.write("half of the new");
        CHECK(read_file(path) == "old");
    }
    CHECK(read_file(path) == "old");
    CHECK(folder.names() == std::vector<std::string>{"a"});
    const std::string bytes("new\0\n\xff", 6);
    write_file_atomic(path, bytes);
    CHECK(read_file(path) == bytes);
    CHECK(folder.names() == std::vector<std::string>{"a"});
}

TEST_CASE("files: a full disk throws, says what to do, and the previous file survives") {
    const Folder folder;
    const std::string path = folder / "last.safetensors";
    write_file_atomic(path, "old");
    const std::string temporary = temporary_name(path);
    fs::create_symlink("/dev/full", temporary);  // every write to it fails with "no space left"
    std::string message;
    CHECK(code_of([&] { write_file_atomic(path, "new"); }, &message) == Exit::data);
    CHECK(message.find(path) != std::string::npos);
    CHECK(message.find("No space left") != std::string::npos);
    CHECK(read_file(path) == "old");
    CHECK(folder.names() == std::vector<std::string>{"last.safetensors"});
}

TEST_CASE("files: a write that is cut short in the middle throws") {
    const Folder folder;
    const std::string path = folder / "a";
    write_file_atomic(path, "old");
    {
        const FileSizeLimit limit(1000);
        CHECK(code_of([&] { write_file_atomic(path, std::string(5000, 'x')); }) == Exit::data);
    }
    CHECK(read_file(path) == "old");
    CHECK(folder.names() == std::vector<std::string>{"a"});
}

TEST_CASE("files: a file larger than the free space is refused before the first byte") {
    const Folder folder;
    std::string message;
    CHECK(code_of([&] { AtomicFile(folder / "a", int64_t{1} << 60); }, &message) == Exit::data);
    CHECK(message.find("MB left") != std::string::npos);
    CHECK(folder.names().empty());
}

TEST_CASE("files: a small disk that fills up (where a disk can be mounted)") {
    const Folder folder;
    if (mount("tmpfs", folder.path.c_str(), "tmpfs", 0, "size=64k") != 0) {
        MESSAGE("skipped: no right to mount a tmpfs");
        return;
    }
    const std::string path = folder / "a";
    write_file_atomic(path, std::string(20000, 'o'));
    CHECK(code_of([&] { write_file_atomic(path, std::string(60000, 'n')); }) == Exit::data);  // seen by statvfs
    CHECK(code_of([&] {
              AtomicFile file(path);
              for (int i = 0; i < 60; ++i)
                  file.write(std::string(1000, 'n'));
              file.commit();
          }) == Exit::data);
    CHECK(read_file(path) == std::string(20000, 'o'));
    CHECK(folder.names() == std::vector<std::string>{"a"});

    // A log on that disk loses lines, never the run, and every line that is there is whole.
    {
        RunDir run = RunDir::create(folder / "run");
        for (int64_t step = 1; step <= 2000; ++step)
            run.log(step_line(step));
        fs::remove(path);
        run.log(step_line(2001));
    }
    const auto lines = json_lines(folder / "run/metrics.jsonl");
    REQUIRE(lines.size() > 100);
    CHECK(lines.size() < 2000);
    CHECK(lines.back()["step"] == 2001);
    CHECK(umount(folder.path.c_str()) == 0);
}

TEST_CASE("files: killed in the middle of writing, the old or the new version stands, and leftovers go") {
    const Folder folder;
    const std::string path = folder / "state.safetensors";
    const size_t size = 1 << 20;
    write_file_atomic(path, std::string(size, 'a'));
    const pid_t child = fork();
    if (child == 0) {
        for (char version = 'b';; version = version == 'z' ? 'b' : static_cast<char>(version + 1)) {
            AtomicFile file(path);
            for (size_t piece = 0; piece < 64; ++piece)
                file.write(std::string(size / 64, version));
            file.commit();
        }
    }
    REQUIRE(child > 0);
    usleep(100000);
    kill(child, SIGKILL);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    const std::string found = read_file(path);
    CHECK(found == std::string(size, found.at(0)));

    // The child may have died between two files; a half one is laid beside by hand, with the child's number.
    const Folder other;
    const std::string again = other / "state.safetensors";
    const std::string own = temporary_name(again), until_number = own.substr(0, own.rfind('-') + 1);
    char host[256] = {};
    REQUIRE(gethostname(host, sizeof host - 1) == 0);
    CHECK(until_number.find(std::string(host).substr(0, 8)) != std::string::npos);
    const std::string dead = until_number + std::to_string(child), alive = until_number + std::to_string(getppid()),
                      elsewhere = again + ".tmp-not-" + until_number.substr(again.size() + 5) + std::to_string(child);
    for (const std::string& name : {dead, alive, elsewhere, again + ".tmp-notes"})
        std::ofstream(name) << "half";
    write_file_atomic(again, "done");
    CHECK(read_file(again) == "done");
    CHECK(!fs::exists(dead));
    CHECK(fs::exists(alive));
    CHECK(fs::exists(elsewhere));  // that process may live on its host
    CHECK(fs::exists(again + ".tmp-notes"));
    // A folder is listed once: thousands of files that are written to it would each go through all of them.
    std::ofstream(dead) << "half";
    write_file_atomic(again, "done");
    CHECK(fs::exists(dead));
}

TEST_CASE("files: what cannot be read tells a file that is gone from a folder, a disk or a limit") {
    const Folder folder;
    const auto found = [&](const std::string& path) {
        try {
            const InputFile file(path);
        } catch (const ReadError& error) {
            CHECK(error.code() == Exit::data);
            CHECK(std::string(error.what()).rfind(path + ": cannot be read: ", 0) == 0);
            CHECK(!error.remedy().empty());
            return std::make_pair(error.error(), error.gone());
        }
        return std::make_pair(0, false);
    };
    fs::create_directory(folder / "there");
    std::ofstream(folder / "there/a") << "x";
    fs::create_symlink("there/a", folder / "link");
    fs::create_symlink("there/b", folder / "to_missing");
    fs::create_symlink(folder / "unmounted/a", folder / "to_unmounted");
    CHECK(found(folder / "there/a") == std::make_pair(0, false));
    CHECK(found(folder / "link") == std::make_pair(0, false));
    CHECK(found(folder / "there/b") == std::make_pair(ENOENT, true));
    CHECK(found(folder / "to_missing") == std::make_pair(ENOENT, true));
    CHECK(found(folder / "unmounted/a") == std::make_pair(ENOENT, false));
    CHECK(found(folder / "to_unmounted") == std::make_pair(ENOENT, false));
    CHECK(code_of([&] {
              const InputFile file("/proc/self/mem");
              file.size();
          }) == Exit::ok);
    const InputFile no_page("/proc/self/mem");  // nothing lies at address 0
    char byte = 0;
    CHECK_THROWS_AS(no_page.read(0, &byte, 1), ReadError);

    rlimit before{};
    REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
    const rlimit none{0, before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
    const auto at_limit = found(folder / "there/a");
    REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(at_limit == std::make_pair(EMFILE, false));
}

TEST_CASE("files: those kept open share half of what the process may have open, which is raised to its limit") {
    rlimit before{};
    REQUIRE(getrlimit(RLIMIT_NOFILE, &before) == 0);
    const rlimit low{100, before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
    int64_t taken = 0;
    while (taken < 1000 && take_open_place())
        ++taken;
    give_back_open_places(1);
    const bool again = take_open_place(), no_more = !take_open_place();
    give_back_open_places(taken);
    raise_open_files();
    rlimit raised{};
    getrlimit(RLIMIT_NOFILE, &raised);
    setrlimit(RLIMIT_NOFILE, &before);
    CHECK(taken > 0);
    CHECK(taken <= 50);
    CHECK(again);
    CHECK(no_more);
    CHECK(raised.rlim_cur == std::min<rlim_t>(before.rlim_max, 65536));
}

TEST_CASE("files: wrong paths are errors with a remedy") {
    const Folder folder;
    CHECK(code_of([&] { read_file(folder / "missing"); }) == Exit::data);
    CHECK(code_of([&] { read_file(folder.path); }) == Exit::data);
    CHECK(code_of([&] { write_file_atomic(folder / "missing/a", "x"); }) == Exit::data);
    fs::create_directory(folder / "folder");
    CHECK(code_of([&] { write_file_atomic(folder / "folder", "x"); }) == Exit::data);
    CHECK(folder.names() == std::vector<std::string>{"folder"});
}

TEST_CASE("run folder: a metrics line has the contract's keys; what is not finite becomes null") {
    MetricsLine line;
    line.event = "step";
    CHECK(line.json() == R"({"event":"step"})");
    line.epoch = 2;
    line.step = 17;
    line.loss = std::numeric_limits<double>::quiet_NaN();
    line.lr = 1e-4;
    line.top1 = 95.5;
    line.top5 = 100;
    line.macro_f1 = 93.25;
    line.images_per_s = 812.5;
    line.data_wait = 0.015;
    line.loss_scale = 65536;
    line.grad_norm = std::numeric_limits<double>::infinity();
    line.memory_mb = 1024;
    CHECK(line.json() ==
          R"({"event":"step","epoch":2,"step":17,"loss":null,"lr":0.0001,"top1":95.5,"top5":100.0,"macro_f1":93.25,)"
          R"("images_per_s":812.5,"data_wait":0.015,"loss_scale":65536.0,"grad_norm":null,"memory_mb":1024.0})");
}

TEST_CASE("run folder: named ones must be new, automatic ones are") {
    const Folder folder;
    const RunDir named = RunDir::create(folder / "deep/er");
    CHECK(fs::exists(named.file("metrics.jsonl")));
    named.write_text("run.toml", "lr = 1\n");
    CHECK(read_file(folder / "deep/er/run.toml") == "lr = 1\n");
    std::string message;
    CHECK(code_of([&] { RunDir::create(folder / "deep/er"); }, &message) == Exit::usage);
    CHECK(message.find("holds a run already") != std::string::npos);
    CHECK(code_of([&] { RunDir::create(folder / "deep/er/run.toml"); }) == Exit::data);
    CHECK(code_of([&] { RunDir::resume(folder / "missing", 1); }) == Exit::data);

    const fs::path before = fs::current_path();
    fs::current_path(folder.path);
    {
        const RunDir first = RunDir::create(""), second = RunDir::create("");
        CHECK(first.path() != second.path());
        CHECK(first.path().rfind("runs/2", 0) == 0);
        CHECK(fs::exists(folder / second.file("metrics.jsonl")));
    }
    fs::current_path(before);
}

TEST_CASE("run folder: a resumed run continues one history") {
    const Folder folder;
    const std::string path = folder / "run";
    {
        RunDir run = RunDir::create(path);
        MetricsLine start;
        start.event = "start";
        run.log(start);
        for (int64_t step = 1; step <= 5; ++step)
            run.log(step_line(step));
        run.log_bad_picture("a\tb\n.jpg", "zero bytes");
        MetricsLine end;
        end.event = "end";
        end.step = 5;
        run.log(end);
    }
    {
        RunDir run = RunDir::resume(path, 3);
        run.log(step_line(4));
        run.log_bad_picture("a\tb\n.jpg", "zero bytes");
        run.log_bad_picture("c.jpg", "a text file");
        run.log_bad_picture("c.jpg", "a text file");
    }
    auto lines = json_lines(path + "/metrics.jsonl");
    REQUIRE(lines.size() == 5);
    CHECK(lines[0]["event"] == "start");
    CHECK(lines[3]["step"] == 3);
    CHECK(lines[4]["step"] == 4);
    CHECK(read_file(path + "/bad_pictures.txt") == "a\\tb\\n.jpg\tzero bytes\nc.jpg\ta text file\n");

    // Stopped right at step 4: only the end line goes. Killed within a line: only that line goes.
    std::ofstream(path + "/metrics.jsonl", std::ios::app) << R"({"event":"end","step":4})"
                                                          << "\n";
    { const RunDir run = RunDir::resume(path, 4); }
    CHECK(json_lines(path + "/metrics.jsonl").size() == 5);
    std::ofstream(path + "/metrics.jsonl", std::ios::app) << R"({"event":"step","ste)";
    { const RunDir run = RunDir::resume(path, 100); }
    lines = json_lines(path + "/metrics.jsonl");
    REQUIRE(lines.size() == 5);
    CHECK(lines[4]["step"] == 4);
}

TEST_CASE("run folder: a log that cannot be written loses lines, not the run") {
    const Folder folder;
    RunDir run = RunDir::create(folder / "run");
    {
        const FileSizeLimit limit(200);
        for (int64_t step = 1; step <= 20; ++step)
            run.log(step_line(step));
    }
    run.log(step_line(21));
    const auto lines = json_lines(folder / "run/metrics.jsonl");  // throws at half a line
    REQUIRE(lines.size() >= 3);
    CHECK(lines.size() < 10);
    CHECK(lines.back()["step"] == 21);
}
