// rn50 predict: the class of each picture.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "base/log.h"
#include "cli/classifier.h"
#include "cli/commands.h"
#include "cli/prediction.h"
#include "format/safetensors.h"

namespace rn50 {

namespace {

/// Prints predictions in the order of the pictures, with those that could not be read in their places.
class Printer {
  public:
    Printer(PredictionForm form, const std::vector<std::string>& pictures) : form_(form), pictures_(pictures) {
        write(prediction_header(form_));
    }

    void print(int64_t index, const Prediction& prediction, const std::vector<BadPicture>& bad) {
        print_bad_before(index, bad);
        next_ = index + 1;
        write(prediction_line(prediction, form_));
        if (prediction.error.empty()) {
            ++answered_;
        } else {
            tell(prediction);
        }
    }
    void finish(const std::vector<BadPicture>& bad) { print_bad_before(static_cast<int64_t>(pictures_.size()), bad); }

    int64_t answered() const { return answered_; }
    int64_t failed() const { return failed_; }

  private:
    void print_bad_before(int64_t end, const std::vector<BadPicture>& bad) {
        for (; next_ < end; ++next_) {
            RN50_REQUIRE(used_ < bad.size() && bad[used_].index == next_, "picture ", next_,
                         " was neither delivered nor refused");
            const BadPicture& refused = bad[used_++];
            const Prediction prediction{pictures_[static_cast<size_t>(next_)], refused.reason, {}};
            write(prediction_line(prediction, form_));
            tell(prediction);
        }
    }

    /// In the other forms the error stands among the results.
    void tell(const Prediction& prediction) {
        ++failed_;
        if (form_ == PredictionForm::plain) log::warn(cat(prediction.path, ": ", prediction.error));
    }

    static void write(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

    PredictionForm form_;
    const std::vector<std::string>& pictures_;
    int64_t next_ = 0, answered_ = 0, failed_ = 0;
    size_t used_ = 0;  ///< entries of the loader's list of bad pictures that were told
};

/// The net's input for PyTorch's eyes: `pixels` u8 {N, S, S, C} as the net takes them, and `input` f32 {N, C, S, S},
/// (pixels / 255 - mean) / std, which the net's first convolution makes of them.
void dump_input(const Batch& batch, const Classifier& classifier, const std::string& file) {
    const int64_t side = batch.images.shape[1], area = side * side, channels = batch.images.shape[3];
    const uint8_t* const pixels = batch.images.as<uint8_t>();
    std::vector<float> input(static_cast<size_t>(batch.count * channels * area));
    for (int64_t n = 0; n < batch.count; ++n)
        for (int64_t c = 0; c < channels; ++c)
            for (int64_t i = 0; i < area; ++i) {
                const float value = static_cast<float>(pixels[(n * area + i) * channels + c]) / 255.f;
                const auto channel = static_cast<size_t>(c);
                input[static_cast<size_t>((n * channels + c) * area + i)] =
                    (value - classifier.mean()[channel]) / classifier.std_dev()[channel];
            }
    SafetensorsWriter writer;
    writer.add("pixels", DType::u8, {batch.count, side, side, channels}, pixels);
    writer.add("input", DType::f32, {batch.count, channels, side, side}, input.data());
    writer.write(file);
}

}  // namespace

int run_predict(const Options& options) {
    const std::vector<std::string> pictures = find_pictures(options.paths);
    const auto count = static_cast<int64_t>(pictures.size());
    const int64_t batch_size = std::min(options.batch_size, count);
    Classifier classifier(options, batch_size);
    log::info(cat(classifier.path(), ": ", classifier.describe()));

    std::vector<Sample> samples;
    for (const std::string& picture : pictures)
        samples.push_back({picture, 0});
    const std::unique_ptr<Source> source = make_list_source(std::move(samples), classifier.classes());
    LoaderOptions loading;
    loading.batch_size = batch_size;
    loading.workers = static_cast<int>(options.workers);
    loading.max_bad = 1;  // each is told by name
    loading.pictures = classifier.pictures();
    loading.give_way = classifier.on_cpu();
    Loader loader(*source, loading, classifier.host_memory());
    loader.start_epoch(0);

    const PredictionForm form = options.json  ? PredictionForm::json
                                : options.csv ? PredictionForm::csv
                                              : PredictionForm::plain;
    Printer printer(form, pictures);
    bool dumped = options.dump_tensor.empty();
    while (const Batch* batch = loader.next()) {
        if (!dumped) dump_input(*batch, classifier, options.dump_tensor);
        if (!dumped && batch_size < count)
            log::info(cat(options.dump_tensor, ": the first ", batch->count, " pictures; --batch-size for more"));
        dumped = true;
        const float* logits = classifier.logits(*batch);
        for (const int64_t index : batch->indices) {
            const std::string& path = pictures[static_cast<size_t>(index)];
            printer.print(index, make_prediction(path, logits, classifier.classes()), loader.bad());
            logits += classifier.classes().size();
        }
        std::fflush(stdout);  // a pipe sees each batch when it is done
    }
    printer.finish(loader.bad());
    if (printer.failed() > 0)
        log::warn(cat(printer.failed(), " of ", count, count == 1 ? " picture" : " pictures", " could not be used"));
    return static_cast<int>(printer.answered() > 0 ? Exit::ok : Exit::data);
}

}  // namespace rn50
