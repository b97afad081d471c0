#include "cli/option_table.h"

#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>
#include <stdexcept>

#include "base/error.h"
#include "cli/config_file.h"
#include "cli/gpus.h"

namespace rn50 {

namespace {

constexpr double unlimited = 9e18;
constexpr unsigned on_pictures = in_train | in_eval | in_predict | in_bench;
constexpr unsigned on_sets = in_pack | in_unpack | in_inspect;
constexpr unsigned on_training_pictures = in_train | in_bench | in_preview;

std::vector<OptionRow> make_table() {
    using O = Options;
    const char* const device = "Model and device";
    const char* const pictures = "Pictures";
    const char* const training = "Training";
    const char* const packing = "Packing";
    const char* const run = "Run and output";
    const auto choice = 0.0;
    return {
        {"model", &O::model, in_train | in_bench, device, "resnet18|resnet34|resnet50|resnet101|resnet152", choice,
         choice, "the network"},
        {"device", &O::device, on_pictures | in_doctor, device, "auto|cpu|cuda", choice, choice,
         "where to compute; auto: a GPU where there is one"},
        {"precision", &O::precision, on_pictures, device, "auto|mixed|fp32|tf32|fp16|bf16", choice, choice,
         "auto: fp16 on a GPU with Tensor Cores, fp32 on a CPU; mixed: bf16 on a CPU that has it"},
        {"memory", &O::memory, in_train | in_bench, device, "auto|full|lean", choice, choice,
         "lean recomputes every second block's output", true, true},
        {"cuda-graph", &O::cuda_graph, in_train | in_bench, device, "yes|no", choice, choice,
         "yes: a GPU records the step and then takes it in one call, for small batches, where launches cost", true,
         true},
        {"threads", &O::threads, on_pictures, device, "N", 0, 4096, "compute threads on a CPU; 0: all cores", true,
         true},
        {"workers", &O::workers, on_pictures | on_sets, device, "N", 0, 4096,
         "threads that read pictures; 0: chosen by cores", true, true},
        {"gpus", &O::gpus, in_train | in_bench, device, "N, all or 0,2", choice, choice,
         "GPUs of this machine to train on, a process with a batch of its own for each", true, true},
        {"ranks", &O::ranks, in_train | in_bench, device, "N", 1, 65536,
         "processes to train in, each with a batch of its own: on CPUs with its share of the cores, else with a GPU"},
        {"peer-timeout", &O::peer_timeout, in_train | in_bench, device, "X", 1, 86400,
         "seconds without a sign of life, or hanging in a step, after which a rank is lost", true, true},
        {"hang-timeout", &O::hang_timeout, in_train | in_bench, device, "X", 1, 864000,
         "seconds without progress after which ranks that may wait for a disk, or for each other, are ended", true,
         true},
        {"sync-bn", &O::sync_bn, in_train | in_bench, device, "", choice, choice,
         "batch-norm statistics over all ranks; needs several"},
        {"bucket-mb", &O::bucket_mb, in_train | in_bench, device, "N", 0, 65536,
         "megabytes of gradients that ranks average at a time, while the rest is made; 0: all at once, afterwards"},
        {"wire", &O::wire, in_train | in_bench, device, "fp32|fp16|bf16", choice, choice,
         "as what gradients go from rank to rank; 16 bits halve the traffic and round every gradient"},
        {"init", &O::init, in_train, device, "FILE", choice, choice,
         "start from these weights (.safetensors, torchvision's names)"},

        {"image-size", &O::image_size, on_training_pictures, pictures, "N", 32, 4096,
         "side of the square input, in pixels"},
        {"channels", &O::channels, on_training_pictures, pictures, "1|3", 1, 3,
         "3: RGB; 1: grey, the luma of colour pictures"},
        {"bits", &O::bits, on_training_pictures | in_pack, pictures, "0|8|9|10|11|12|13|14|15|16", 0, 16,
         "how many of the bits count in pictures of 16: 12 for a camera's Mono12; 0: as the file says, or all"},
        {"augment", &O::augment, on_training_pictures, pictures, "none|flip|crop|randaugment|trivial", choice, choice,
         "crop: random resized crop and flip; flip: the whole picture, flipped; the others: crop and a policy"},
        {"crop-scale", &O::crop_scale, on_training_pictures, pictures, "MIN,MAX", 0.001, 1,
         "area of the random crop, as fractions of the picture"},
        {"decode", &O::decode, on_training_pictures, pictures, "auto|region|whole|gpu", choice, choice,
         "region: of a JPEG only what the training input needs, reduced while decoding; gpu: crops by nvJPEG; auto: "
         "region, or gpu where train gains by it"},
        {"flip", &O::flip, on_training_pictures, pictures, "none|horizontal|vertical|both", choice, choice,
         "which flips augmentation draws"},
        {"jitter", &O::jitter, on_training_pictures, pictures, "X", 0, 1,
         "brightness, contrast and saturation each vary by up to this"},
        {"rotate90", &O::rotate90, on_training_pictures, pictures, "", choice, choice,
         "rotate by 0, 90, 180 or 270 degrees, for surfaces that have no up"},
        {"randaugment", &O::randaugment, on_training_pictures, pictures, "N,M", 0, 30,
         "operations a picture, 1 to 8, and their magnitude, 0 to 30, of --augment randaugment"},
        {"blur", &O::blur, on_training_pictures, pictures, "SIGMA", 0, 20,
         "blur every second picture, by 0.1 to this many pixels; 0: do not"},
        {"noise", &O::noise, on_training_pictures, pictures, "X", 0, 1,
         "add normal noise, its deviation drawn from 0 to this share of the range; 0: do not"},
        {"erasing", &O::erasing, on_training_pictures, pictures, "P", 0, 1,
         "probability that a random rectangle is erased"},
        {"erasing-fill", &O::erasing_fill, on_training_pictures, pictures, "mean|noise", choice, choice,
         "what an erased rectangle is filled with"},
        {"mixup", &O::mixup, on_training_pictures, pictures, "ALPHA", 0, 100,
         "blend each picture and its label with another's, by Beta(ALPHA, ALPHA); 0: do not"},
        {"cutmix", &O::cutmix, on_training_pictures, pictures, "ALPHA", 0, 100,
         "paste a rectangle of another picture, and its label's share; with --mixup, one of them a batch; 0: do not"},
        {"resize", &O::resize, on_training_pictures, pictures, "squash|letterbox|center", choice, choice,
         "how evaluation makes a picture square"},
        {"cache-mb", &O::cache_mb, in_train | in_bench, pictures, "N", 0, 100e6,
         "memory of each rank for decoded pictures that stay from epoch to epoch, whole: 3 bytes a pixel; 0: none"},
        {"val-split", &O::val_split, in_train | in_eval | in_bench | in_preview, pictures, "X", 0, 0.9,
         "fraction kept for validation where DATA has no val"},
        {"label-offset", &O::label_offset, in_train | in_eval | in_bench | in_preview | on_sets, pictures, "0|1", 0, 1,
         "the number of the first class in TFRecord, LMDB and tar shards"},
        {"max-bad", &O::max_bad, in_train | in_eval | in_bench | in_pack | in_unpack, pictures, "X", 0, 1,
         "stop when more than this fraction of pictures is unreadable", true, true},

        {"epochs", &O::epochs, in_train, training, "N", 1, 1e6, "passes over the training pictures"},
        {"max-steps", &O::max_steps, in_train | in_bench, training, "N", 0, unlimited,
         "end after so many steps, on the schedule of --epochs; 0: no limit", true, true},
        {"batch-size", &O::batch_size, on_pictures, training, "N", 1, 65536, "pictures at a time, of each rank"},
        {"accumulate", &O::accumulate, in_train, training, "N", 1, 4096,
         "batches of each rank that make a step: their gradients are added up"},
        {"optimizer", &O::optimizer, in_train | in_bench, training, "adamw|sgd", choice, choice,
         "sgd has Nesterov momentum"},
        {"lr", &O::lr, in_train, training, "X", 0, 1000, "highest learning rate, reached after warm-up"},
        {"weight-decay", &O::weight_decay, in_train, training, "X", 0, 1000, "not on batch norm and biases"},
        {"momentum", &O::momentum, in_train, training, "X", 0, 0.9999, "of sgd"},
        {"warmup-epochs", &O::warmup_epochs, in_train, training, "X", 0, 1e6, "linear warm-up; then a cosine to 0"},
        {"dropout", &O::dropout, in_train, training, "X", 0, 0.99, "before the classifier"},
        {"label-smoothing", &O::label_smoothing, in_train, training, "X", 0, 0.99, "share spread over all classes"},
        {"class-weights", &O::class_weights, in_train, training, "none|auto", choice, choice,
         "auto: a class weighs in the loss as rare as it is, pictures / (classes * its pictures)"},
        {"sampler", &O::sampler, in_train | in_bench, training, "shuffle|balanced", choice, choice,
         "balanced: an epoch draws every class equally often"},
        {"zero-init-residual", &O::zero_init_residual, in_train, training, "yes|no", choice, choice,
         "blocks start as their shortcuts (gamma of the last norm at 0)"},
        {"clip-norm", &O::clip_norm, in_train, training, "X", 0, 1e30, "clip the gradients' global norm; 0: do not"},
        {"loss-scale", &O::loss_scale, in_train | in_bench, training, "X", 0, 16777216,
         "the loss times this, for fp16's small gradients; 0: found as the run goes in fp16, 1 elsewhere"},
        {"seed", &O::seed, in_train | in_eval | in_bench | in_preview, training, "N", 0, unlimited,
         "of every random number; same seed, same run"},

        {"format", &O::format, in_pack, packing, "folder|webdataset|tfrecord|lmdb", choice, choice,
         "what to write: folders of classes, tar shards, TFRecord shards, a database", false, true},
        {"encode", &O::encode, in_pack, packing, "keep|jpeg|png", choice, choice,
         "what pictures become: keep copies them (JPEG where made smaller), jpeg copies JPEGs alone, png none", false,
         true},
        {"longest", &O::longest, in_pack, packing, "N", 0, 65500,
         "make pictures smaller whose longer side has more pixels; 0: copy them", false, true},
        {"shortest", &O::shortest, in_pack, packing, "N", 0, 65500,
         "make pictures smaller whose shorter side has more pixels; 0: copy them", false, true},
        {"quality", &O::quality, in_pack, packing, "N", 1, 100, "of the JPEGs that pictures become", false, true},
        {"restart-markers", &O::restart_markers, in_pack, packing, "", choice, choice,
         "code copied JPEGs anew, same pixels, so that a crop decodes without its surroundings", false, true},
        {"shard-mb", &O::shard_mb, in_pack | in_unpack, packing, "N", 1, 1e6,
         "megabytes a shard, about; what is finished at a time", false, true},
        {"sample", &O::sample, in_inspect, packing, "N", -1, unlimited, "show picture N of each split; -1: none", false,
         true},
        {"verify", &O::verify, in_inspect, packing, "", choice, choice, "read and decode every picture", false, true},

        {"out", &O::out, in_train | in_preview, run, "PATH", choice, choice,
         "train: the run's folder; none: a new one, runs/NAME. preview: the .png to write", true, true},
        {"count", &O::count, in_preview, run, "N", 1, 1000, "pictures to show", false, true},
        {"save-minutes", &O::save_minutes, in_train, run, "X", 0, 1e6,
         "save within an epoch too, after so many minutes; 0: after epochs and when stopped alone", true, true},
        {"resume", &O::resume, in_train, run, "auto|FILE", choice, choice,
         "auto: go on with the run in --out, or begin it; FILE: its state.safetensors", true, true},
        {"config", &O::config, on_pictures | in_preview | on_sets, run, "FILE", choice, choice,
         "options from a TOML file, over DATA/rn50.toml", false, true},
        {"dump-tensor", &O::dump_tensor, in_predict, run, "FILE", choice, choice,
         "write the net's input (.safetensors) to check pre-processing", false, true},
        {"json", &O::json, in_eval | in_predict | in_bench | in_doctor | in_inspect, run, "", choice, choice,
         "results as JSON", false, true},
        {"csv", &O::csv, in_predict, run, "", choice, choice, "results as CSV", false, true},
        {"verbose", &O::verbose, in_bench, run, "", choice, choice, "time by operation", false, true},
        {"self-test", &O::self_test, in_doctor, run, "", choice, choice,
         "every operation on --device, beside the CPU: about half a minute", false, true},
        {"quiet", &O::quiet, on_pictures | in_doctor | in_preview | on_sets, run, "", choice, choice,
         "warnings and errors only", false, true},
    };
}

std::string shortest(double value) {
    if (std::abs(value) < 1e9 && value == std::floor(value)) return std::to_string(static_cast<int64_t>(value));
    char text[40];
    const auto end = std::to_chars(text, text + sizeof text, value).ptr;
    std::string shown(text, end);
    const size_t exponent = shown.find("e-0");
    if (exponent != std::string::npos) shown.erase(exponent + 2, 1);  // 1e-04 -> 1e-4
    return shown;
}

/// A float in TOML has a point or an exponent.
std::string toml_float(double value) {
    const std::string text = shortest(value);
    return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

template <class Number>
Number parse_number(const std::string& text, const char* kind) {
    const size_t sign = text.size() > 1 && text[0] == '+' ? 1 : 0;
    Number value{};
    const auto [end, error] = std::from_chars(text.data() + sign, text.data() + text.size(), value);
    if (error == std::errc::result_out_of_range) throw std::invalid_argument("is out of range");
    if (error != std::errc{} || end != text.data() + text.size() || !std::isfinite(static_cast<double>(value)))
        throw std::invalid_argument(cat("is not ", kind));
    return value;
}

template <class Number>
Number checked(const OptionRow& row, Number value) {
    const double number = static_cast<double>(value);
    if (is_choice(row) && !allows(row, shortest(number)))
        throw std::invalid_argument(cat("must be one of ", row.values));
    if (row.low == row.high && number != row.low)
        throw std::invalid_argument(cat("is not in this build: ", row.low, " is all it takes"));
    if (number < row.low || number > row.high)
        throw std::invalid_argument(row.high >= unlimited
                                        ? cat("must be at least ", shortest(row.low))
                                        : cat("must be from ", shortest(row.low), " to ", shortest(row.high)));
    return value;
}

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, separator);)
        parts.push_back(part);
    return parts;
}

void set_pair(const OptionRow& row, std::array<double, 2>& pair, const std::vector<std::string>& parts) {
    if (parts.size() != 2) throw std::invalid_argument(cat("must be two numbers, ", row.values));
    const std::array<double, 2> read{checked(row, parse_number<double>(parts[0], "a number")),
                                     checked(row, parse_number<double>(parts[1], "a number"))};
    if (std::strcmp(row.name, "randaugment") == 0) {
        if (read[0] != std::floor(read[0]) || read[1] != std::floor(read[1]) || read[0] < 1 || read[0] > 8)
            throw std::invalid_argument("must be two whole numbers, N from 1 to 8 and M from 0 to 30");
    } else if (read[0] > read[1])
        throw std::invalid_argument(cat("must be ", row.values, " with the smaller number first"));
    pair = read;
}

bool parse_bool(const std::string& text) {
    if (text != "true" && text != "false") throw std::invalid_argument("must be true or false");
    return text == "true";
}

}  // namespace

const std::vector<OptionRow>& option_table() {
    static const std::vector<OptionRow> table = make_table();
    return table;
}

const std::vector<CommandRow>& command_table() {
    static const std::vector<CommandRow> table{
        {"train", in_train, "DATA", "train on DATA/train/CLASS/*, judge on DATA/val/CLASS/*"},
        {"eval", in_eval, "CHECKPOINT DATA", "top-1, top-5, a table by class, the confusion matrix"},
        {"predict", in_predict, "CHECKPOINT PATH...", "the class of each picture, one line a picture"},
        {"preview", in_preview, "DATA", "a picture (--out FILE.png) of what the net will see in training"},
        {"bench", in_bench, "step|loader|infer|kernels|comm|buckets [DATA]",
         "images/s (median of many steps) and peak memory; kernels: each pass over memory beside a plain copy; comm: "
         "what --ranks or --gpus pay for what they do together, by size; buckets: their step by --bucket-mb"},
        {"pack", in_pack, "DATA OUT", "writes DATA anew: tar or TFRecord shards, an LMDB, or smaller pictures"},
        {"unpack", in_unpack, "DATA OUT", "from shards or an LMDB back to folders of classes"},
        {"inspect", in_inspect, "DATA",
         "what a data set holds: format, shards, pictures, classes, sizes; --verify reads all"},
        {"doctor", in_doctor, "", "what this machine has and lacks, and the command that mends it"},
    };
    return table;
}

const OptionRow* find_option(const std::string& name) {
    for (const OptionRow& row : option_table())
        if (name == row.name) return &row;
    return nullptr;
}

bool is_choice(const OptionRow& row) {
    return std::strchr(row.values, '|') != nullptr && std::strcmp(row.name, "resume") != 0;
}

bool allows(const OptionRow& row, const std::string& value) {
    for (const std::string& word : split(row.values, '|'))
        if (word == value) return true;
    return false;
}

std::string show_value(const OptionRow& row, const Options& options) {
    struct Show {
        const Options& options;
        std::string operator()(std::string Options::*m) const { return (options.*m).empty() ? "none" : options.*m; }
        std::string operator()(int64_t Options::*m) const { return std::to_string(options.*m); }
        std::string operator()(double Options::*m) const { return shortest(options.*m); }
        std::string operator()(bool Options::*m) const { return options.*m ? "on" : "off"; }
        std::string operator()(std::array<double, 2> Options::*m) const {
            return cat(shortest((options.*m)[0]), ",", shortest((options.*m)[1]));
        }
    };
    return std::visit(Show{options}, row.member);
}

std::string toml_value(const OptionRow& row, const Options& options) {
    struct Write {
        const Options& options;
        std::string operator()(std::string Options::*m) const { return toml_quote(options.*m); }
        std::string operator()(int64_t Options::*m) const { return std::to_string(options.*m); }
        std::string operator()(double Options::*m) const { return toml_float(options.*m); }
        std::string operator()(bool Options::*m) const { return options.*m ? "true" : "false"; }
        std::string operator()(std::array<double, 2> Options::*m) const {
            return cat("[", toml_float((options.*m)[0]), ", ", toml_float((options.*m)[1]), "]");
        }
    };
    return std::visit(Write{options}, row.member);
}

void set_value(const OptionRow& row, Options& options, const std::vector<std::string>& parts) {
    if (const auto* pair = std::get_if<std::array<double, 2> Options::*>(&row.member)) {
        const bool joined = parts.size() == 1;  // "0.08,1" on the command line, two parts in a file
        return set_pair(row, options.*(*pair), joined ? split(parts[0], ',') : parts);
    }
    if (parts.size() != 1) throw std::invalid_argument("must be one value, not a list");
    const std::string& text = parts[0];
    if (const auto* string = std::get_if<std::string Options::*>(&row.member)) {
        if (is_choice(row) && !allows(row, text)) throw std::invalid_argument(cat("must be one of ", row.values));
        if (std::strcmp(row.name, "gpus") == 0) gpus_from(text);  // throws
        if (text.empty() && !row.in_files) throw std::invalid_argument("must not be empty");
        options.*(*string) = text;
    } else if (const auto* integer = std::get_if<int64_t Options::*>(&row.member)) {
        options.*(*integer) = checked(row, parse_number<int64_t>(text, "a whole number"));
    } else if (const auto* number = std::get_if<double Options::*>(&row.member)) {
        options.*(*number) = checked(row, parse_number<double>(text, "a number"));
    } else {
        options.*std::get<bool Options::*>(row.member) = parse_bool(text);
    }
}

}  // namespace rn50
