// The door: arguments in, a command run, errors told, an exit code out.
#include <signal.h>

#include <cstdio>
#include <exception>
#include <new>

#include "base/error.h"
#include "base/files.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "cli/commands.h"
#include "comm/place.h"

namespace rn50 {

namespace {

int run_command(const Options& options) {
    if (options.command == "train") return run_train(options);
    if (options.command == "eval") return run_eval(options);
    if (options.command == "predict") return run_predict(options);
    if (options.command == "preview") return run_preview(options);
    if (options.command == "bench") return run_bench(options);
    if (options.command == "pack" || options.command == "unpack") return run_pack(options);
    if (options.command == "inspect") return run_inspect(options);
    RN50_REQUIRE(options.command == "doctor", "no command ", options.command);
    return run_doctor(options);
}

/// Results that did not arrive are an error, however well they were computed.
void flush_results() {
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
        throw Error(Exit::data, with_errno("the results could not be written to stdout"),
                    "free some space, or send them elsewhere");
}

int run(const std::vector<std::string>& arguments) {
    const CommandLine line = parse_command_line(arguments);
    if (!line.text.empty()) {
        // Help that was not asked for is a usage error, told where errors are told.
        std::fputs(line.text.c_str(), arguments.empty() ? stderr : stdout);
        flush_results();
        return static_cast<int>(arguments.empty() ? Exit::usage : Exit::ok);
    }
    const Options& options = line.options;
    const std::optional<Place> place = options.command == "train" || options.command == "bench"
                                           ? place_from(process_environment())
                                           : std::optional<Place>();
    const bool leads = !place || place->rank == 0;
    if (!leads) log::set_prefix(cat("rank ", place->rank, ": "));
    log::set_quiet(options.quiet || !leads);
    // A reader who has seen enough (`| head`) ends predict by SIGPIPE, as usual; a run of days outlives its terminal.
    if (options.command == "train" || options.command == "pack" || options.command == "unpack")
        signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);  // a file above the limit of its size is an error to tell, not an end without a word
    raise_open_files();
    for (const std::string& file : options.files_read)
        log::info("options from " + file);
    const int code = run_command(options);
    flush_results();
    return code;
}

int tell(Exit code, const std::string& what, const std::string& remedy) {
    log::progress_done();
    log::error(remedy.empty() ? what : cat(what, "\n       ", remedy));
    return static_cast<int>(code);
}

}  // namespace

}  // namespace rn50

int main(int count, char** values) {
    using namespace rn50;
    try {
        return run(std::vector<std::string>(values + 1, values + count));
    } catch (const Error& error) {
        return tell(error.code(), error.what(), error.remedy());
    } catch (const Interrupted& stopped) {
        log::progress_done();
        log::info("stopped before anything was begun that could be saved");
        return exit_code_of_signal(stopped.signal());
    } catch (const std::bad_alloc&) {
        return tell(Exit::device, "out of memory", "choose a smaller --batch-size or fewer --workers");
    } catch (const std::exception& error) {
        return tell(Exit::internal, error.what(),
                    "this is a defect of rn50; please report it with the command line and the lines above");
    }
}
