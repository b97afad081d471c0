// state.safetensors: what a stopped run goes on from.
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "train/fit.h"

namespace rn50 {

namespace {

using Json = nlohmann::json;

constexpr const char* format_name = "rn50-state-1";

Json json_of(const EpochSummary& e) {
    return {e.epoch, e.lr,       e.train_loss,   e.val_loss,  e.top1,
            e.top5,  e.macro_f1, e.images_per_s, e.data_wait, e.seconds};
}

EpochSummary epoch_of(const Json& json) {
    const auto number = [&](size_t i) {
        const Json& value = json.at(i);
        return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();  // JSON has no NaN
    };
    return {json.at(0).get<int64_t>(),
            number(1),
            number(2),
            number(3),
            number(4),
            number(5),
            number(6),
            number(7),
            number(8),
            number(9)};
}

struct StoredTensor {
    const char* name;
    Tensor tensor;
};

std::vector<StoredTensor> tensors_of(const Trainer& trainer) {
    std::vector<StoredTensor> all{{"parameters", trainer.net().state().parameters},
                                  {"running", trainer.net().state().running},
                                  {"moment1", trainer.moment1()},
                                  {"step_state", trainer.step_state()}};
    if (trainer.moment2()) all.push_back({"moment2", trainer.moment2()});
    return all;
}

std::string names(const std::vector<std::string>& classes) {
    return Json(classes).dump(-1, ' ', false, Json::error_handler_t::replace);
}

[[noreturn]] void other_run(const std::string& path, const std::string& reason) {
    throw Error(Exit::data, cat(path, " cannot be resumed: ", reason), "resume with the data and options of that run");
}

}  // namespace

void FitState::add_loss(double loss) {
    if (!std::isfinite(loss)) return;
    loss_sum += loss;
    ++loss_steps;
}

double FitState::mean_loss() const {
    return loss_steps > 0 ? loss_sum / static_cast<double>(loss_steps) : std::numeric_limits<double>::quiet_NaN();
}

const EpochSummary* FitState::best() const {
    const EpochSummary* best = nullptr;
    for (const EpochSummary& epoch : history)
        if (best == nullptr || epoch.top1 > best->top1 || (epoch.top1 == best->top1 && epoch.val_loss < best->val_loss))
            best = &epoch;
    return best;
}

std::string text_of(const FitState& state) {
    Json history = Json::array();
    for (const EpochSummary& epoch : state.history)
        history.push_back(json_of(epoch));
    Json position{{"pictures", state.pictures},     {"step", state.step},           {"loss_sum", state.loss_sum},
                  {"loss_steps", state.loss_steps}, {"elapsed_s", state.elapsed_s}, {"history", history}};
    if (state.fingerprint) position["fingerprint"] = *state.fingerprint;
    return position.dump();
}

FitState state_from(const std::string& text) {
    FitState state;
    const Json position = Json::parse(text);
    state.pictures = position.at("pictures").get<int64_t>();
    if (position.contains("fingerprint")) state.fingerprint = position["fingerprint"].get<uint32_t>();
    state.step = position.at("step").get<int64_t>();
    state.loss_sum = position.at("loss_sum").get<double>();
    state.loss_steps = position.at("loss_steps").get<int64_t>();
    state.elapsed_s = position.at("elapsed_s").get<double>();
    for (const Json& epoch : position.at("history"))
        state.history.push_back(epoch_of(epoch));
    return state;
}

std::optional<int64_t> saved_step(const std::string& path) {
    try {
        return state_from(SafetensorsReader(path).metadata().at("position")).step;
    } catch (const std::exception&) {
        return std::nullopt;
    }
}

void save_state(const std::string& path, Trainer& trainer, const CheckpointInfo& info, const FitState& state) {
    SafetensorsWriter writer;
    for (const StoredTensor& stored : tensors_of(trainer))
        writer.add(stored.name, stored.tensor.dtype, dims_of(stored.tensor.shape),
                   [&trainer, tensor = stored.tensor](void* dst) {
                       trainer.backend().copy_out(trainer.context(), tensor, dst);
                   });
    writer.set_metadata("format", format_name);
    writer.set_metadata("model", info.model);
    writer.set_metadata("classes", names(info.classes));
    writer.set_metadata("precision", info.precision);
    writer.set_metadata("seed", std::to_string(trainer.options().seed));
    writer.set_metadata("position", text_of(state));
    writer.write(path);
}

FitState load_state(const std::string& path, Trainer& trainer, const CheckpointInfo& info) {
    const SafetensorsReader file(path);
    const auto metadata = [&](const char* key) {
        const auto found = file.metadata().find(key);
        return found == file.metadata().end() ? std::string() : found->second;
    };
    if (metadata("format") != format_name) other_run(path, "it is not the state.safetensors of a run of this version");
    if (metadata("classes") != names(info.classes)) other_run(path, "the run had other classes than these data");
    const std::pair<const char*, std::string> expected[] = {
        {"model", info.model}, {"precision", info.precision}, {"seed", std::to_string(trainer.options().seed)}};
    for (const auto& [key, value] : expected)
        if (metadata(key) != value) other_run(path, cat("its ", key, " was ", metadata(key), ", now it is ", value));

    FitState state;
    try {
        state = state_from(metadata("position"));
    } catch (const Json::exception&) {
        other_run(path, "its position makes no sense");
    }
    std::vector<char> bytes;
    for (const StoredTensor& stored : tensors_of(trainer)) {
        bytes.resize(static_cast<size_t>(stored.tensor.bytes()));
        file.read(stored.name, dims_of(stored.tensor.shape), stored.tensor.dtype, bytes.data());
        trainer.backend().copy_in(trainer.context(), bytes.data(), stored.tensor);
        trainer.backend().synchronize(trainer.context());  // the buffer is used again
    }
    return state;
}

}  // namespace rn50
