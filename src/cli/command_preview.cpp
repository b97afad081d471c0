// rn50 preview: a contact sheet of what the net will see.
#include <algorithm>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/math.h"
#include "cli/commands.h"
#include "cli/loading_advice.h"
#include "cli/picture_options.h"
#include "pipeline/sample_maker.h"
#include "report/canvas.h"

namespace rn50 {

namespace {

constexpr int64_t epochs_shown = 5, gap = 6, least_cell = 128, largest_cell = 256;
constexpr report::Color background = {32, 34, 40}, ink = {235, 235, 235};

/// The first picture of each class that `usable` takes, then the second of each, and so on.
template <class Usable>
std::vector<int64_t> pictures_by_turns(const Source& source, int64_t count, const Usable& usable) {
    std::vector<std::vector<int64_t>> by_class(source.classes().size());
    for (int64_t i = 0; i < source.size(); ++i)
        by_class[static_cast<size_t>(source.label(i))].push_back(i);
    std::vector<size_t> next(by_class.size());
    std::vector<int64_t> chosen;
    for (bool more = true; more;) {
        more = false;
        for (size_t c = 0; c < by_class.size() && static_cast<int64_t>(chosen.size()) < count; ++c) {
            while (next[c] < by_class[c].size() && !usable(by_class[c][next[c]]))
                ++next[c];
            if (next[c] == by_class[c].size()) continue;
            chosen.push_back(by_class[c][next[c]++]);
            more = true;
        }
    }
    return chosen;
}

class Sheet {
  public:
    Sheet(const Options& options, const Source& source)
        : evaluation_(evaluation_pictures(options)),
          training_(training_pictures(options)),
          mixing_(mixing(options)),
          seed_(static_cast<uint64_t>(options.seed)),
          source_(source),
          most_bad_(options.count) {
        chosen_ = pictures_by_turns(source, options.count, [&](int64_t index) { return is_good(index); });
        if (chosen_.empty()) throw Error(Exit::data, cat(options.data, ": no picture can be used"), "see the warnings");
    }

    /// What the pictures shown were like.
    PicturesSeen take_seen() { return maker_.take_seen(); }

    report::Canvas draw() {
        const int64_t size = training_.image_size;
        const int64_t cell = std::min(size < least_cell ? size * ceil_div(least_cell, size) : size, largest_cell);
        int64_t names = 0;
        for (const int64_t index : chosen_)
            names = std::max(names, report::Canvas::text_width(name_of_class(index)));
        names = std::min<int64_t>(names, 240) + 2 * gap;
        const int64_t top = report::Canvas::text_height + 2 * gap, step = cell + gap;
        report::Canvas canvas(top + static_cast<int64_t>(chosen_.size()) * step, names + (1 + epochs_shown) * step,
                              background);
        for (int64_t column = 0; column <= epochs_shown; ++column) {
            const std::string title = column == 0 ? "evaluation" : cat("epoch ", column);
            canvas.text(gap, names + column * step, title, cell, ink);
            const std::vector<uint8_t> batch = column == 0 ? evaluated() : trained(column - 1);
            for (size_t i = 0; i < chosen_.size(); ++i)
                place(canvas, top + static_cast<int64_t>(i) * step, names + column * step, cell, picture(batch, i));
        }
        for (size_t i = 0; i < chosen_.size(); ++i)
            canvas.text(top + static_cast<int64_t>(i) * step + (cell - report::Canvas::text_height) / 2, gap,
                        name_of_class(chosen_[i]), names - 2 * gap, ink);
        return canvas;
    }

  private:
    std::string name_of_class(int64_t index) const {
        return source_.classes()[static_cast<size_t>(source_.label(index))];
    }

    /// Whether it can be read and decoded, all of it; says why not. Throws when that was said as often as pictures are
    /// to be shown.
    bool is_good(int64_t index) {
        std::vector<uint8_t> pixels(static_cast<size_t>(picture_bytes()));
        try {
            maker_.make(source_, index, evaluation_, {seed_, 0, index}, nullptr, pixels.data());
            return true;
        } catch (const Error& error) {
            if (error.code() != Exit::data || bad_ == most_bad_) throw;
            ++bad_;
            log::warn(cat("skipped ", error.what()));
            return false;
        }
    }

    int64_t picture_bytes() const { return training_.image_size * training_.image_size * training_.channels; }
    const uint8_t* picture(const std::vector<uint8_t>& batch, size_t i) const {
        return &batch[i * static_cast<size_t>(picture_bytes())];
    }

    /// The chosen pictures, as evaluation sees them or as training does in an epoch.
    std::vector<uint8_t> batch_of(const PictureOptions& pictures, int64_t epoch) {
        std::vector<uint8_t> batch(chosen_.size() * static_cast<size_t>(picture_bytes()));
        for (size_t i = 0; i < chosen_.size(); ++i)
            maker_.make(source_, chosen_[i], pictures, {seed_, epoch, chosen_[i]}, nullptr,
                        &batch[i * static_cast<size_t>(picture_bytes())]);
        return batch;
    }

    std::vector<uint8_t> evaluated() { return batch_of(evaluation_, 0); }

    std::vector<uint8_t> trained(int64_t epoch) {
        std::vector<uint8_t> batch = batch_of(training_, epoch);
        if (mixing_) {  // as if the pictures shown were the epoch's first batch
            const Mix mix = draw_mix(mixing_, training_.image_size, seed_, epoch, 0);
            std::vector<int32_t> labels(chosen_.size()), partners(chosen_.size());
            std::vector<uint8_t> scratch;
            apply_mix(mix, batch.data(), static_cast<int64_t>(chosen_.size()), training_.image_size, training_.channels,
                      labels.data(), partners.data(), scratch);
        }
        return batch;
    }

    /// Small pictures are shown with larger pixels, large ones smaller.
    void place(report::Canvas& canvas, int64_t y, int64_t x, int64_t cell, const uint8_t* pixels) {
        const int64_t size = training_.image_size;
        const int channels = training_.channels;
        Picture whole;
        whole.height = whole.width = std::max(size, cell);
        for (int64_t i = 0; i < whole.height * whole.width; ++i) {
            const int64_t from_y = i / whole.width * size / whole.height, from_x = i % whole.width * size / whole.width;
            const uint8_t* from = pixels + (from_y * size + from_x) * channels;
            for (int c = 0; c < 3; ++c)
                whole.rgb.push_back(from[channels == 1 ? 0 : c]);
        }
        PictureOptions as_shown;
        as_shown.image_size = cell;
        std::vector<uint8_t> shown(static_cast<size_t>(cell * cell * 3));
        render(whole, as_shown, nullptr, shown.data());
        canvas.place(y, x, shown.data(), cell, cell, 3);
    }

    PictureOptions evaluation_, training_;
    MixOptions mixing_;
    uint64_t seed_;
    const Source& source_;
    const int64_t most_bad_;
    int64_t bad_ = 0;
    std::vector<int64_t> chosen_;
    SampleMaker maker_;
};

}  // namespace

int run_preview(const Options& options) {
    std::vector<std::string> warnings;
    const std::unique_ptr<Source> source = open_training(options.data, data_options(options), warnings);
    for (const std::string& warning : warnings)
        log::warn(warning);
    Sheet sheet(options, *source);
    const report::Canvas canvas = sheet.draw();
    tell_unused_bits(sheet.take_seen(), options.bits, true);
    write_file_atomic(options.out, canvas.png());
    log::info(cat(options.out, ": ", canvas.width(), "x", canvas.height(),
                  " pixels; the first column is what evaluation sees, the others are epochs of training"));
    return static_cast<int>(Exit::ok);
}

}  // namespace rn50
