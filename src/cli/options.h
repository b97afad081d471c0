// Every option of the program: one struct, one meaning everywhere. Values come from four places, each over the one
// before: built-in defaults, DATA/rn50.toml, --config FILE, the command line; each option remembers which of them it
// was.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace rn50 {

/// Where an option's value comes from; a later one wins.
enum class Origin : uint8_t { built_in, data_file, config_file, command_line };

struct Options {
    std::string command;  ///< "train", "eval", "pack", ...

    // Positional arguments.
    std::string data;                ///< train, eval, preview, bench, pack, unpack, inspect
    std::string output;              ///< pack, unpack: the folder to be made
    std::string checkpoint;          ///< eval, predict
    std::vector<std::string> paths;  ///< predict: pictures and folders
    std::string bench = "step";      ///< bench: step|loader|infer|kernels|comm|buckets

    // Model and device.
    std::string model = "resnet50";
    std::string device = "auto";     ///< auto|cpu|cuda
    std::string precision = "auto";  ///< auto|mixed|fp32|tf32|fp16|bf16
    std::string memory = "auto";     ///< auto|full|lean
    std::string cuda_graph = "no";   ///< yes|no: whether steps go to a GPU as recorded wholes
    int64_t threads = 0;             ///< compute threads; 0: all the process may use
    int64_t workers = 0;             ///< decoding threads; 0: chosen by the loader
    std::string gpus = "1";          ///< N|all|0,2
    int64_t ranks = 1;
    bool sync_bn = false;
    int64_t bucket_mb = 16;     ///< of gradients averaged at a time, in 2^20 bytes; 0: all after the backward pass
    double peer_timeout = 30;   ///< seconds
    double hang_timeout = 600;  ///< seconds
    std::string wire = "fp32";  ///< fp32|fp16|bf16
    std::string init;           ///< weights to start from; empty: random

    // Pictures.
    int64_t image_size = 224;                     ///< pixels, square
    int64_t channels = 3;                         ///< 3: RGB, 1: grey
    int64_t bits = 0;                             ///< that count of 16-bit pictures; 0: as the files say
    std::string augment = "crop";                 ///< none|flip|crop|randaugment|trivial
    std::array<double, 2> crop_scale{0.08, 1.0};  ///< area of the random crop, as fractions
    std::string flip = "horizontal";              ///< none|horizontal|vertical|both
    std::string decode = "auto";                  ///< auto|region|whole|gpu
    int64_t cache_mb = 0;                         ///< room for decoded pictures, in 1e6 bytes; 0: none
    double jitter = 0;                            ///< strength of the colour jitter, 0 to 1
    bool rotate90 = false;
    std::array<double, 2> randaugment{2, 9};  ///< operations and their magnitude, whole numbers
    double blur = 0;                          ///< largest sigma, pixels
    double noise = 0;                         ///< largest deviation, share of the whole range
    double erasing = 0;                       ///< probability
    std::string erasing_fill = "mean";        ///< mean|noise
    std::string resize = "squash";            ///< squash|letterbox|center
    double val_split = 0;                     ///< fraction of DATA/CLASS/* kept for validation
    int64_t label_offset = 0;                 ///< 0|1: the number of the first class in TFRecord and LMDB
    double max_bad = 0.01;                    ///< fraction of unreadable pictures that stops a run

    // Training.
    int64_t epochs = 50;
    int64_t max_steps = 0;  ///< ends the run early; 0: no limit; the schedule stays that of `epochs`
    int64_t batch_size = 64;
    int64_t accumulate = 1;           ///< batches in a step
    std::string optimizer = "adamw";  ///< adamw|sgd
    double lr = 1e-4;
    double weight_decay = 1e-5;
    double momentum = 0.9;  ///< of sgd
    double warmup_epochs = 5;
    double dropout = 0.3;
    double label_smoothing = 0;
    std::string class_weights = "none";      ///< none|auto
    std::string sampler = "shuffle";         ///< shuffle|balanced
    double mixup = 0, cutmix = 0;            ///< alpha; 0: off
    std::string zero_init_residual = "yes";  ///< yes|no: whether blocks start as their shortcuts
    double clip_norm = 0;                    ///< global L2 norm; 0: no clipping
    double loss_scale = 0;                   ///< 0: found as the run goes where fp16 needs one
    int64_t seed = 0;

    // Packing and looking.
    std::string format = "webdataset";  ///< folder|webdataset|tfrecord|lmdb
    std::string encode = "keep";        ///< keep|jpeg|png
    int64_t longest = 0;                ///< bound of the longer side in pixels; 0: none
    int64_t shortest = 0;               ///< bound of the shorter side in pixels; 0: none
    int64_t quality = 90;               ///< of JPEGs that are encoded
    bool restart_markers = false;       ///< in JPEGs that are copied
    int64_t shard_mb = 1000;
    int64_t sample = -1;  ///< inspect: show this picture; -1: none
    bool verify = false;  ///< inspect: read and decode everything

    // The run and its output.
    std::string out;     ///< run directory; empty: a new one, runs/NAME. preview: the picture to write
    std::string resume;  ///< "": a new run; "auto": go on with the run in `out`; else a state file or a run directory
    std::string config;
    std::string dump_tensor;
    bool json = false;
    bool csv = false;
    bool verbose = false;
    bool quiet = false;
    bool self_test = false;    ///< doctor
    double save_minutes = 10;  ///< between saves within an epoch; 0: none
    int64_t count = 8;         ///< preview: pictures

    /// Pictures in a step of training, of all ranks.
    int64_t pictures_a_step() const { return batch_size * ranks * accumulate; }

    /// Where the value of the option with this long name ("batch-size") comes from.
    Origin origin(const std::string& name) const;
    /// Whether anybody set it: a file or the command line.
    bool is_set(const std::string& name) const { return origin(name) != Origin::built_in; }

    std::map<std::string, Origin> origins;  ///< of the options that were set
    std::vector<std::string> files_read;    ///< "data/rn50.toml (epochs, lr)", in the order in which they were read
};

/// What the command line asks for: text to print and be done (--help, --version), or a command to run.
struct CommandLine {
    std::string text;
    Options options;
};

/// Reads the arguments (without the program's name), then the files they name. Throws Error(Exit::usage) with a
/// suggestion for an unknown command, option or key, and for a value that is not allowed.
CommandLine parse_command_line(const std::vector<std::string>& arguments);

/// One line `key = value` an option of training, in TOML: `--config` of this text repeats the run. `out` and `resume`
/// are left out: a repeated run has a folder of its own.
std::string to_toml(const Options& options);

/// Sets the options that a TOML file names. Options already set by a later origin stay as they are, yet the file's
/// values are checked. Throws Error(Exit::usage) naming file and line, Error(Exit::data) when the file cannot be read.
void apply_file(Options& options, const std::string& file, Origin origin);

/// The value of one option as to_toml writes it: `64`, `"adamw"`, `[0.08, 1.0]`.
std::string option_value(const Options& options, const std::string& name);

/// The options of a run, from its run.toml.
Options stored_options(const std::string& run_toml);

/// The options with which a run goes on whose own are `stored`: all as they were, except where `asked` sets one that
/// may change without changing the result (threads, memory, --max-steps, output, ...). Another number of ranks is one:
/// the pictures of a step stay, and are shared out anew. Throws Error(Exit::usage) when `asked` sets, in a file or on
/// the command line, anything else to another value, or the pictures of a step cannot be shared out so.
Options resumed_options(const Options& asked, const Options& stored);

/// What to say of a run that goes on with its steps shared out otherwise: one line each; none where nothing changes.
std::vector<std::string> sharing_changes(const Options& before, const Options& now);

}  // namespace rn50
