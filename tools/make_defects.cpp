// Draws the demo set: surfaces of metal, textile and castings as an inspection camera sees them, sound or with one kind
// of defect, with a mask of each defect. Every picture is a function of (seed, split, number) alone.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "defects/camera.h"
#include "defects/canvas.h"
#include "defects/defect.h"
#include "defects/store.h"
#include "defects/surface.h"

namespace {

namespace fs = std::filesystem;
using namespace rn50;
using namespace rn50::defects;

constexpr int kMostClasses = kSurfaces * (1 + (kDefects - 1) * kStyles);

const char* const kRecipe =
    "# Recipe for the demo set: learns from scratch on two CPU cores in a few minutes.\n"
    "model = \"resnet50\"\n"
    "image-size = 64\n"
    "precision = \"mixed\"      # 16 bit where the device has it: bf16 on a CPU, fp16 on a GPU\n"
    "epochs = 12\n"
    "batch-size = 32\n"
    "lr = 0.0015\n"
    "warmup-epochs = 1\n"
    "crop-scale = [0.8, 1.0]  # a smaller crop would cut many defects off\n"
    "dropout = 0.0\n";

const char* const kHelp =
    "Draws a set of inspection pictures to train on: OUT/train, OUT/val and OUT/hard (the faint ones),\n"
    "each with a folder per class, OUT/masks beside them, OUT/classes.txt and a recipe, OUT/rn50.toml.\n\n"
    "Up to 8 classes, a class is a kind of defect: none, scratch, pit, crack, inclusion, stain, dent,\n"
    "rolled_in_scale. All of them lie on the same 8 surfaces (brushed, honed, turned and milled metal,\n"
    "plain weave and twill, castings and blasted metal), so that the background tells nothing.\n"
    "With more than 8, a class is one surface with one variant of a defect, small or large, one or\n"
    "several, and two characters (such as dark or bright): 8 x (1 + 7 x 8) = 456 in all. They are\n"
    "called class_000 and so on, and classes.txt says what each of them is.";

struct Options {
    std::string out = "data";
    int size = 256;
    int classes = 8;
    int count = 1600;
    uint64_t seed = 0;
    int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
};

/// What all pictures of one folder share.
struct Class {
    std::string folder;
    std::string meaning;
    Defect defect;
    int surface;  ///< a Surface, or -1: each picture takes the next one
    Style style;
};

struct Split {
    const char* name;
    uint32_t number;  ///< the `epoch` of its random numbers
    int count;
    double faintest, strongest;
};

std::string numbered(const char* format, int number) {
    char text[32];
    std::snprintf(text, sizeof text, format, number);
    return text;
}

/// The variant's bits are its traits: size, number, character.
std::string describe(Defect defect, const Style& style) {
    if (defect == Defect::none) return "none";
    return cat(name_of(defect), ": ", style.size == 1 ? "large" : "small", ", ", style.number == 1 ? "several" : "few",
               ", ", character_of(defect, style.character));
}

std::vector<Class> make_classes(int count) {
    std::vector<Class> classes;
    for (int i = 0; i < count; ++i) {
        if (count <= kDefects) {
            const auto defect = static_cast<Defect>(i);
            classes.push_back({name_of(defect), name_of(defect), defect, -1, {}});
            continue;
        }
        const int surface = i % kSurfaces, rank = i / kSurfaces;  // rank 0 is the sound surface
        const auto defect = static_cast<Defect>(rank == 0 ? 0 : 1 + (rank - 1) % (kDefects - 1));
        const int variant = rank == 0 ? 0 : (rank - 1) / (kDefects - 1);
        const Style style{variant & 1, variant >> 1 & 1, variant >> 2 & 1, 1.0f};
        classes.push_back({numbered("class_%03d", i),
                           cat(name_of(static_cast<Surface>(surface)), ", ", describe(defect, style)), defect, surface,
                           style});
    }
    return classes;
}

std::string list_of(const std::vector<Class>& classes) {
    std::string text;
    for (const Class& one : classes)
        text += one.folder + "\t" + one.meaning + "\n";
    return text;
}

/// Draws into a folder of its own within --out and moves everything into place at the end: an interrupted run leaves
/// nothing that could be taken for a set.
class Drawing {
  public:
    explicit Drawing(const Options& options)
        : options_(options),
          out_(options.out),
          work_(out_ / ".drawing"),
          classes_(make_classes(options.classes)),
          splits_{{"train", 0, options.count, 0.9, 1.0},
                  {"val", 1, options.count / 4, 0.9, 1.0},
                  {"hard", 2, options.count / 10, 0.25, 0.6}} {}

    void run() {
        refuse_to_overwrite();
        make_folder(out_);
        fs::remove_all(work_);
        try {
            make_folders();
            draw_all();
            write_text(work_ / "classes.txt", list_of(classes_));
            move_into_place(work_ / "classes.txt", out_ / "classes.txt");
            write_recipe();
            // train comes last: where it stands, the set is complete.
            for (const char* name : kFolders) {
                move_into_place(work_ / name, out_ / name);
            }
            fs::remove(work_);
        } catch (...) {
            std::error_code ignored;
            fs::remove_all(work_, ignored);
            throw;
        }
    }

    int pictures() const {
        int sum = 0;
        for (const Split& split : splits_)
            sum += split.count;
        return sum;
    }
    const std::vector<Split>& splits() const { return splits_; }

  private:
    static constexpr const char* kFolders[] = {"masks", "hard", "val", "train"};

    void refuse_to_overwrite() const {
        for (const char* name : kFolders) {
            std::error_code error;
            if (!fs::exists(out_ / name, error)) continue;
            throw Error(Exit::data, cat((out_ / name).string(), " is already there"),
                        "remove it first, or name another folder with --out");
        }
    }

    /// A recipe that is there may have been tuned by hand: it stays.
    void write_recipe() const {
        if (fs::exists(out_ / "rn50.toml")) {
            log::info(cat((out_ / "rn50.toml").string(), " is already there and stays as it is"));
            return;
        }
        write_text(work_ / "rn50.toml", kRecipe);
        move_into_place(work_ / "rn50.toml", out_ / "rn50.toml");
    }

    void make_folders() const {
        for (const Split& split : splits_) {
            for (const Class& one : classes_) {
                make_folder(work_ / split.name / one.folder);
                if (one.defect != Defect::none) make_folder(work_ / "masks" / split.name / one.folder);
            }
        }
    }

    void draw_all() {
        std::vector<std::thread> workers;
        for (int i = 0; i < std::min(options_.threads, pictures()); ++i)
            workers.emplace_back([this] { work(); });
        for (std::thread& worker : workers)
            worker.join();
        log::progress_done();
        if (failure_) std::rethrow_exception(failure_);
    }

    void work() {
        Canvas canvas;
        std::vector<uint8_t> rgb;
        try {
            for (int job = next_++; job < pictures(); job = next_++) {
                int number = job;
                auto split = splits_.begin();
                while (number >= split->count)
                    number -= (split++)->count;
                draw(*split, number, canvas, rgb);
                if (job % 64 == 0) log::progress(cat("drawing ", job, " of ", pictures()));
            }
        } catch (...) {
            const std::lock_guard<std::mutex> lock(mutex_);
            if (!failure_) failure_ = std::current_exception();
            next_ = pictures();
        }
    }

    void draw(const Split& split, int number, Canvas& canvas, std::vector<uint8_t>& rgb) const {
        const int classes = options_.classes;
        const Class& one = classes_[static_cast<size_t>(number % classes)];
        const int turn = number / classes;
        Random random(options_.seed, split.number, static_cast<uint64_t>(number), Purpose::demo);
        const Noise noise(random);
        canvas.reset(options_.size);
        const auto surface = static_cast<Surface>(one.surface >= 0 ? one.surface : turn % kSurfaces);
        const Look look = draw_surface(canvas, noise, random, surface);
        scatter_dust(canvas, random);
        Style style = one.style;
        style.strength = pick(random, split.faintest, split.strongest);
        draw_defect(canvas, noise, random, look, one.defect, style);
        photograph(canvas, random, look, rgb);

        const std::string name = numbered("%05d", turn);
        write_jpeg(work_ / split.name / one.folder / (name + ".jpg"), rgb, options_.size);
        if (one.defect != Defect::none) {
            RN50_REQUIRE(canvas.has_defect(), split.name, " picture ", number, " of ", one.folder, " shows no defect");
            write_png(work_ / "masks" / split.name / one.folder / (name + ".png"), canvas.mask, options_.size);
        }
    }

    Options options_;
    fs::path out_, work_;
    std::vector<Class> classes_;
    std::vector<Split> splits_;
    std::atomic<int> next_{0};
    std::mutex mutex_;
    std::exception_ptr failure_;
};

int run(const Options& options) {
    const auto start = std::chrono::steady_clock::now();
    Drawing drawing(options);
    drawing.run();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::string counts;
    for (const Split& split : drawing.splits())
        counts += cat(counts.empty() ? "" : " + ", split.count, " ", split.name);
    log::info(cat("drew ", counts, " pictures of ", options.size, "x", options.size, " in ", options.classes,
                  " classes into ", options.out, " (", std::round(took.count() * 10) / 10, " s)"));
    return static_cast<int>(Exit::ok);
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    CLI::App app{kHelp};
    app.add_option("--out", options.out, "Folder to draw into")->capture_default_str();
    app.add_option("--size", options.size, "Width and height in pixels")
        ->capture_default_str()
        ->check(CLI::Range(64, 8192));
    app.add_option("--classes", options.classes, "Number of classes")
        ->capture_default_str()
        ->check(CLI::Range(2, kMostClasses));
    app.add_option("--count", options.count, "Training pictures; a quarter more for val, a tenth more for hard")
        ->capture_default_str()
        ->check(CLI::Range(2, 100'000'000));
    app.add_option("--seed", options.seed, "Another seed draws another set")->capture_default_str();
    app.add_option("--threads", options.threads,
                   "Threads to draw with, one per core unless told; the pictures are the same for any number")
        ->check(CLI::Range(1, 1024));
    try {
        app.parse(argc, argv);
        if (options.count < options.classes) {
            throw Error(
                Exit::usage,
                cat("--count ", options.count, " leaves some of ", options.classes, " classes without a picture"),
                cat("give --count ", options.classes, " or more"));
        }
        return run(options);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : static_cast<int>(Exit::usage);
    } catch (const Error& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        if (!error.remedy().empty()) std::fprintf(stderr, "  %s\n", error.remedy().c_str());
        return static_cast<int>(error.code());
    } catch (const fs::filesystem_error& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return static_cast<int>(Exit::data);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return static_cast<int>(Exit::internal);
    }
}
