#include "train/checkpoint.h"

#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/log.h"

namespace rn50 {

namespace {

using Json = nlohmann::json;

constexpr const char* format_key = "format";
constexpr const char* first_weights = "conv1.weight";

std::string running_name(const RunningStatistics& row, bool variance) {
    return row.name + (variance ? ".running_var" : ".running_mean");
}

bool is_classifier(const Parameter& parameter) {
    return parameter.name.compare(0, 3, "fc.") == 0;
}

[[noreturn]] void not_a_checkpoint(const SafetensorsReader& file, const std::string& reason) {
    throw Error(Exit::data, cat(file.path(), " is not a checkpoint of rn50: ", reason),
                "give best.safetensors or last.safetensors of a run; weights of others start a run with --init");
}

std::string metadata_of(const SafetensorsReader& file, const char* key) {
    const auto found = file.metadata().find(key);
    if (found == file.metadata().end()) not_a_checkpoint(file, cat("its metadata lack \"", key, "\""));
    return found->second;
}

template <class T>
T json_of(const SafetensorsReader& file, const char* key) {
    try {
        return Json::parse(metadata_of(file, key)).get<T>();
    } catch (const Json::exception&) {
        not_a_checkpoint(file, cat("its metadata \"", key, "\" make no sense"));
    }
}

/// Whether the file's classifier answers for other classes than the net's; the reason goes to `why`.
bool other_classes(const SafetensorsReader& file, const Net& net, const std::vector<std::string>& classes,
                   std::string& why) {
    if (!file.has("fc.weight")) {
        why = "has no classifier";
        return true;
    }
    const Dims& dims = file.entry("fc.weight").dims;
    if (dims.size() == 2 && dims[0] != net.desc().classes) {
        why = cat("knows ", dims[0], " classes, these data have ", net.desc().classes);
        return true;
    }
    const auto names = file.metadata().find("classes");
    if (names == file.metadata().end()) return false;
    const Json stored = Json::parse(names->second, nullptr, false);
    if (stored.is_array() && stored != Json(classes)) {
        why = "knows classes of other names";
        return true;
    }
    return false;
}

/// A tensor that the net has no place for means that the file holds another net.
void check_no_more(const SafetensorsReader& file, const Net& net) {
    std::set<std::string> known;
    for (const Parameter& parameter : net.table().parameters())
        known.insert(parameter.name);
    for (const RunningStatistics& row : net.table().running()) {
        known.insert(running_name(row, false));
        known.insert(running_name(row, true));
        known.insert(row.name + ".num_batches_tracked");
    }
    for (const auto& [name, entry] : file.entries())
        if (known.count(name) == 0)
            throw Error(
                Exit::data,
                cat(file.path(), " holds ", name, " (", str(entry.dims), "), which ", net.desc().model, " has not"),
                "choose the --model that the file was made with");
}

void check_row(const SafetensorsReader& file, const Net& net, const std::string& name, const Dims& dims) {
    const char* const remedy = name == first_weights
                                   ? "choose the --model and the --channels that the file was made with"
                                   : "choose the --model that the file was made with";
    if (!file.has(name))
        throw Error(Exit::data,
                    cat(file.path(), " lacks ", name, " (", str(dims), "), which ", net.desc().model, " has"), remedy);
    const Dims& stored = file.entry(name).dims;
    if (stored != dims)
        throw Error(
            Exit::data,
            cat(file.path(), ": ", name, " is ", str(stored), ", but in ", net.desc().model, " it is ", str(dims)),
            remedy);
}

/// Whether `parameter` is the first convolution of a net for grey pictures, and the file's is for three channels.
bool is_for_color(const SafetensorsReader& file, const Parameter& parameter) {
    if (parameter.name != first_weights || !file.has(first_weights)) return false;
    const Dims& stored = file.entry(first_weights).dims;
    const Dims wanted = parameter.torch_dims();
    return wanted[1] == 1 && stored == Dims{wanted[0], 3, wanted[2], wanted[3]};
}

/// Its weights {K, 3, kh, kw} summed over the channels: what they make of a grey picture that is given three times.
void read_summed(const SafetensorsReader& file, const Parameter& parameter, std::vector<float>& summed) {
    const Dims dims = file.entry(first_weights).dims;
    const auto area = static_cast<size_t>(dims[2] * dims[3]);
    std::vector<float> stored(static_cast<size_t>(parameter.count()) * 3);
    file.read(first_weights, dims, DType::f32, stored.data());
    for (size_t i = 0; i < summed.size(); ++i) {
        const float* from = &stored[i / area * 3 * area + i % area];
        summed[i] = from[0] + from[area] + from[2 * area];
    }
}

/// `imported`: from a net of others, whose first convolution may be for colour.
void load(const SafetensorsReader& file, Backend& backend, Context& ctx, const Net& net, bool with_classifier,
          bool imported) {
    const ParameterTable& table = net.table();
    // Everything is checked before anything is changed.
    for (const Parameter& parameter : table.parameters())
        if ((with_classifier || !is_classifier(parameter)) && !(imported && is_for_color(file, parameter)))
            check_row(file, net, parameter.name, parameter.torch_dims());
    for (const RunningStatistics& row : table.running())
        for (const bool variance : {false, true})
            check_row(file, net, running_name(row, variance), {row.channels});
    check_no_more(file, net);

    std::vector<float> stored, device;
    const auto put = [&](const Tensor& dst) {
        backend.copy_in(ctx, device.data(), dst);
        backend.synchronize(ctx);  // the buffer is used again
    };
    for (const Parameter& parameter : table.parameters()) {
        if (!with_classifier && is_classifier(parameter)) continue;
        const auto count = static_cast<size_t>(parameter.count());
        stored.resize(count);
        device.resize(count);
        if (imported && is_for_color(file, parameter)) {
            read_summed(file, parameter, stored);
            log::info(cat(file.path(), ": ", first_weights, " is for 3 channels: it is summed over them for 1"));
        } else {
            file.read(parameter.name, parameter.torch_dims(), DType::f32, stored.data());
        }
        from_torch_layout(parameter, stored.data(), device.data());
        put(net.state().parameters.slice(parameter.offset, parameter.count()));
    }
    for (const RunningStatistics& row : table.running())
        for (const bool variance : {false, true}) {
            device.resize(static_cast<size_t>(row.channels));
            file.read(running_name(row, variance), {row.channels}, DType::f32, device.data());
            put(net.state().running.slice(row.offset + (variance ? row.channels : 0), row.channels));
        }
}

}  // namespace

CheckpointInfo read_checkpoint_info(const SafetensorsReader& file) {
    CheckpointInfo info;
    info.model = metadata_of(file, "model");
    info.classes = json_of<std::vector<std::string>>(file, "classes");
    info.image_size = json_of<int64_t>(file, "image_size");
    try {
        info.resize = resize_from(metadata_of(file, "resize"));
    } catch (const Error&) {
        not_a_checkpoint(file, cat("it knows no resize \"", metadata_of(file, "resize"), "\""));
    }
    const auto mean = json_of<std::vector<float>>(file, "mean"), deviation = json_of<std::vector<float>>(file, "std");
    if ((mean.size() != 1 && mean.size() != 3) || deviation.size() != mean.size())
        not_a_checkpoint(file, cat("it has ", mean.size(), " means and ", deviation.size(), " deviations"));
    info.channels = static_cast<int>(mean.size());
    std::copy(mean.begin(), mean.end(), info.mean.begin());
    std::copy(deviation.begin(), deviation.end(), info.std.begin());
    info.precision = metadata_of(file, "precision");
    if (file.metadata().count("bits") > 0) info.bits = json_of<int>(file, "bits");
    if (info.bits != 0 && (info.bits < 8 || info.bits > 16)) not_a_checkpoint(file, cat(info.bits, " bits"));
    if (info.classes.empty()) not_a_checkpoint(file, "it knows no classes");
    if (info.image_size < 1 || info.image_size > 65536) not_a_checkpoint(file, cat("image size ", info.image_size));
    return info;
}

void save_checkpoint(const std::string& path, Backend& backend, Context& ctx, const Net& net,
                     const CheckpointInfo& info, int64_t batches_tracked) {
    SafetensorsWriter writer;
    std::vector<float> scratch;
    const auto fetch = [&](const Tensor& src) {
        scratch.resize(static_cast<size_t>(src.count()));
        backend.copy_out(ctx, src, scratch.data());
    };
    for (const Parameter& parameter : net.table().parameters())
        writer.add(parameter.name, DType::f32, parameter.torch_dims(), [&, row = &parameter](void* dst) {
            fetch(net.state().parameters.slice(row->offset, row->count()));
            to_torch_layout(*row, scratch.data(), static_cast<float*>(dst));
        });
    for (const RunningStatistics& row : net.table().running()) {
        for (const bool variance : {false, true}) {
            const Tensor values = net.state().running.slice(row.offset + (variance ? row.channels : 0), row.channels);
            writer.add(running_name(row, variance), DType::f32, {row.channels},
                       [&backend, &ctx, values](void* dst) { backend.copy_out(ctx, values, dst); });
        }
        writer.add(row.name + ".num_batches_tracked", DType::i64, {}, &batches_tracked);
    }
    // Names of classes come from folders, which may be no UTF-8.
    const auto text = [](const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); };
    writer.set_metadata(format_key, "pt");
    writer.set_metadata("model", info.model);
    writer.set_metadata("classes", text(info.classes));
    writer.set_metadata("image_size", std::to_string(info.image_size));
    writer.set_metadata("resize", name_of(info.resize));
    writer.set_metadata("bits", std::to_string(info.bits));
    const auto by_channel = [&](const std::array<float, 3>& values) {
        return text(std::vector<float>(values.begin(), values.begin() + info.channels));
    };
    writer.set_metadata("mean", by_channel(info.mean));
    writer.set_metadata("std", by_channel(info.std));
    writer.set_metadata("precision", info.precision);
    writer.write(path);
}

void load_checkpoint(const SafetensorsReader& file, Backend& backend, Context& ctx, const Net& net) {
    load(file, backend, ctx, net, true, false);
}

void import_checkpoint(const SafetensorsReader& file, Backend& backend, Context& ctx, const Net& net,
                       const std::vector<std::string>& classes) {
    std::string why;
    const bool fresh_classifier = other_classes(file, net, classes, why);
    load(file, backend, ctx, net, !fresh_classifier, true);
    log::info(fresh_classifier ? cat(file.path(), " ", why, ": its weights are taken, the classifier starts anew")
                               : cat("weights from ", file.path()));
}

}  // namespace rn50
