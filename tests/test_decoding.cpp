// Pictures decoded by a device, which a stand-in is here: what goes to it, what comes of it, and when it is chosen.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "backend/backend.h"
#include "base/log.h"
#include "cli/decoding.h"
#include "cli/training_setup.h"
#include "jpeg_support.h"
#include "pipeline/folder.h"
#include "pipeline/formats.h"
#include "pipeline/sample_maker.h"

using namespace rn50;
using namespace rn50::test;

namespace {

/// As nvJPEG behind cuda/nvjpeg.cpp: stored pixels, whole, then cut, then resampled.
struct StandIn final : PictureDecoder {
    bool decode(const PictureRequest& r, uint8_t* dst) override {
        std::this_thread::sleep_for(std::chrono::microseconds(delay_us));
        formats::Jpeg jpeg;
        const PictureSize size = jpeg.open({r.jpeg, r.bytes}, DecodeLimits());
        const Box all{0, 0, static_cast<double>(size.width), static_cast<double>(size.height)};
        Picture whole;
        jpeg.decode({all, size.height, size.width}, whole);
        const uint8_t* const corner = whole.rgb.data() + (r.y * size.width + r.x) * 3;
        const Box box{0, 0, static_cast<double>(r.box_width), static_cast<double>(r.box_height)};
        Resizer().bilinear({corner, r.box_height, r.box_width, size.width * 3}, box, dst, r.height, r.width,
                           r.width * 3);
        return true;
    }
    int delay_us = 0;
};

/// Gives black at once, or what it is told.
struct Black final : PictureDecoder {
    bool decode(const PictureRequest& r, uint8_t* dst) override {
        std::memset(dst, 0, static_cast<size_t>(r.height * r.width * 3));
        return takes;
    }
    bool takes = true;
};

template <class Decoder>
struct Makes final : PictureDecoders {
    explicit Makes(Decoder pattern_ = {}) : pattern(pattern_) {}
    std::string name() const override { return "a stand-in"; }
    bool beside_other_work() const override { return false; }
    std::unique_ptr<PictureDecoder> make() override {
        ++made;
        ++made_by_all;
        return std::make_unique<Decoder>(pattern);
    }
    Decoder pattern;
    int64_t peak_bytes() const override { return 400; }
    void reserve(int64_t) override {}
    int made = 0;
    static inline int made_by_all = 0;
};

PictureOptions cropping(Decode decode, int64_t size = 48) {
    PictureOptions options;
    options.image_size = size;
    options.augment = Augment::crop;
    options.decode = decode;
    return options;
}

std::vector<uint8_t> sample(SampleMaker& maker, const Source& source, int64_t index, Decode decode, int64_t size = 48) {
    const PictureOptions options = cropping(decode, size);
    std::vector<uint8_t> dst(static_cast<size_t>(size * size * 3));
    maker.make(source, index, options, {1, 2, index}, nullptr, dst.data());
    return dst;
}

LoaderOptions loading_of(int workers) {
    LoaderOptions options;
    options.batch_size = 4;
    options.workers = workers;
    options.shuffle = options.drop_last = options.replace_bad = true;
    options.pictures = cropping(Decode::device);
    return options;
}

/// 72 JPEGs of two classes.
struct Jpegs {
    explicit Jpegs(int64_t size = 90) {
        std::vector<std::vector<uint8_t>> some;
        for (int i = 0; i < 6; ++i)
            some.push_back(encode(soft_picture(size, size + 10 + i), {"4:2:0"}));
        for (size_t i = 0; i < 72; ++i)
            folder.write(cat("set/", i % 2 ? "a" : "b", "/", i, ".jpg"), some[i % 6]);
        source = make_folder_source(folder.path("set"));
    }
    TempFolder folder;
    std::unique_ptr<Source> source;
};

double mean_difference(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
    double sum = 0;
    for (size_t p = 0; p < a.size(); ++p)
        sum += std::abs(int{a[p]} - int{b[p]});
    return sum / static_cast<double>(a.size());
}

/// The GPU's decoders, if there are any; said why, if not.
struct Gpu {
    Gpu() {
        std::string why = "no GPU";
        try {
            backend = make_backend("cuda");
            decoders = backend->picture_decoders(why);
        } catch (const Error& error) {
            why = error.what();
        }
        if (!decoders) MESSAGE("nvJPEG is not tested: " << why);
    }
    std::unique_ptr<Backend> backend;
    std::unique_ptr<PictureDecoders> decoders;
};

}  // namespace

TEST_CASE("decoding: what a device gives is what the whole picture gives, turned or not") {
    const TempFolder folder;
    const Picture drawing = soft_picture(150, 210);
    for (int orientation = 1; orientation <= 8; ++orientation)
        folder.write(cat("a/", orientation, ".jpg"), encode(drawing, {"", 2, 2, false, false, 0, orientation}));
    folder.write("a/9.jpg", encode(drawing, {"gray", 1, 1, true}));
    const auto source = make_folder_source(folder.path());
    SampleMaker by_device(std::make_unique<StandIn>()), by_cpu;
    for (int64_t i = 0; i < source->size(); ++i) {
        CAPTURE(source->name(i));
        const std::vector<uint8_t> got = sample(by_device, *source, i, Decode::device);
        const std::vector<uint8_t> whole = sample(by_cpu, *source, i, Decode::whole);
        // Turned after resampling instead of before it: the roundings differ.
        const bool upright = i == 0 || i == 8;
        CHECK(difference(got, whole) <= (upright ? 0 : 1));
    }
    CHECK(by_device.declined() == 0);
}

TEST_CASE("decoding: what is not for a device is decoded by the CPU, and counted") {
    const TempFolder folder;
    folder.write("a/1.png", read_file(golden_path("rgb.png")));
    folder.write("a/2.jpg", read_file(golden_path("cmyk.jpg")));
    std::vector<uint8_t> jpeg = encode(soft_picture(90, 100), {"4:2:0"});
    folder.write("a/4.jpg", jpeg);
    jpeg.push_back('\n');
    folder.write("a/3.jpg", jpeg);  // with something behind its end
    jpeg.resize(jpeg.size() / 2);
    folder.write("a/5.jpg", jpeg);
    const auto source = make_folder_source(folder.path());
    SampleMaker by_device(std::make_unique<StandIn>()), by_cpu, by_none(nullptr);
    for (int64_t i = 0; i < 3; ++i)
        CHECK(sample(by_device, *source, i, Decode::device) == sample(by_cpu, *source, i, Decode::region));
    CHECK(by_device.declined() == 3);
    const auto reason = [&](SampleMaker& maker, Decode way) {
        return std::string(error_of([&] { sample(maker, *source, 4, way); }).what());
    };
    CHECK(reason(by_device, Decode::device) == reason(by_cpu, Decode::whole));
    // A device that gives up in the midst; and none at all.
    Black declines;
    declines.takes = false;
    SampleMaker by_decliner(std::make_unique<Black>(declines));
    CHECK(sample(by_decliner, *source, 3, Decode::device) == sample(by_cpu, *source, 3, Decode::region));
    CHECK(by_decliner.declined() == 1);
    CHECK(sample(by_none, *source, 3, Decode::device) == sample(by_cpu, *source, 3, Decode::region));
    CHECK(by_none.declined() == 0);
}

TEST_CASE("decoding: batches are the same for any number of workers, each with a decoder of its own") {
    const Jpegs jpegs;
    std::vector<std::vector<uint8_t>> first;
    for (const int workers : {1, 3}) {
        Makes<StandIn> decoders;
        LoaderOptions options = loading_of(workers);
        options.decoders = &decoders;
        HostMemory memory;
        Loader loader(*jpegs.source, options, memory);
        CHECK(decoders.made == workers);
        loader.start_epoch(3);
        std::vector<std::vector<uint8_t>> batches;
        while (const Batch* batch = loader.next()) {
            const auto* pixels = static_cast<const uint8_t*>(batch->images.data);
            batches.emplace_back(pixels, pixels + batch->images.bytes());
        }
        CHECK(batches.size() == 18);
        CHECK(loader.decoded().all == 72);
        CHECK(loader.decoded().declined == 0);
        if (first.empty()) first = batches;
        CHECK(batches == first);
    }
}

TEST_CASE("decoding: a GPU's pixels are near to the CPU's") {
    const Gpu gpu;
    if (!gpu.decoders) return;
    const TempFolder folder;
    const Picture drawing = soft_picture(301, 411);
    const Writing ways[] = {{"4:2:0"},
                            {"4:2:2", 2, 1},
                            {"4:4:4", 1, 1},
                            {"4:4:0", 1, 2},
                            {"gray", 1, 1, true},
                            {"tiles", 2, 2, false, false, 0, 1, 2},
                            {"turned right", 2, 2, false, false, 0, 6}};
    for (size_t i = 0; i < std::size(ways); ++i)
        folder.write(cat("a/", i, ".jpg"), encode(drawing, ways[i]));
    const auto source = make_folder_source(folder.path());
    SampleMaker by_device(gpu.decoders->make()), by_cpu;
    for (int64_t i = 0; i < source->size(); ++i) {
        CAPTURE(ways[static_cast<size_t>(i)].name);
        CHECK(mean_difference(sample(by_device, *source, i, Decode::device),
                              sample(by_cpu, *source, i, Decode::whole)) < 2);
    }
    MESSAGE(gpu.decoders->name() << ": the CPU had to take " << by_device.declined() << " of " << source->size());
}

// RN50_TEST_PHOTOS names a folder of classes; crops of its first pictures are compared.
TEST_CASE("decoding: a GPU's pixels of real pictures are near to the CPU's") {
    const char* const photos = std::getenv("RN50_TEST_PHOTOS");
    if (photos == nullptr) return;
    const Gpu gpu;
    if (!gpu.decoders) return;
    const auto source = make_folder_source(photos);
    const int64_t count = std::min<int64_t>(source->size(), 64);
    SampleMaker by_device(gpu.decoders->make()), by_cpu;
    double sum = 0, most = 0;
    for (int64_t i = 0; i < count; ++i) {
        CAPTURE(source->name(i));
        const double one = mean_difference(sample(by_device, *source, i, Decode::device, 224),
                                           sample(by_cpu, *source, i, Decode::whole, 224));
        CHECK(one < 2);
        sum += one;
        most = std::max(most, one);
    }
    MESSAGE("crops of " << count << " pictures: mean difference " << sum / static_cast<double>(count)
                        << " of 255, in the worst " << most << "; left to the CPU: " << by_device.declined());
}

TEST_CASE("decoding: auto takes the device where it is faster, and says so") {
    const Jpegs jpegs(700);  // a millisecond of the CPU's each
    HostMemory memory;
    const auto choose = [&](const std::string& asked, std::unique_ptr<PictureDecoders> decoders,
                            const std::string& idle = "") {
        DeviceDecoding device;
        device.decoders = std::move(decoders);
        device.why_not = "there is no such thing";
        return choose_decoding(asked, idle, std::move(device), *jpegs.source, loading_of(2), memory);
    };
    StandIn slow;
    slow.delay_us = 3000;
    const Decoding fast = choose("auto", std::make_unique<Makes<Black>>());
    CHECK(fast.way == "gpu");
    CHECK(fast.decoders);
    CHECK(fast.device_bytes == 500);  // a quarter more than the try took
    const Decoding stayed = choose("auto", std::make_unique<Makes<StandIn>>(slow));
    CHECK(stayed.way == "region");
    CHECK_FALSE(stayed.decoders);
    CHECK(choose("auto", nullptr).way == "region");
    CHECK(choose("auto", std::make_unique<Makes<Black>>(), "--augment none").way == "region");
    CHECK(choose("whole", std::make_unique<Makes<Black>>()).way == "whole");
    const Decoding insisted = choose("gpu", std::make_unique<Makes<Black>>());
    CHECK(insisted.way == "gpu");
    CHECK(insisted.decoders);
    const Error error = error_of([&] { choose("gpu", nullptr); });
    CHECK(error.code() == Exit::device);
    CHECK(contains(error.what(), "--decode gpu: there is no such thing"));
    CHECK(memory.in_use == 0);
}

TEST_CASE("decoding: auto keeps the CPU where it feeds the net, without a try of the device") {
    const Jpegs jpegs(700);
    HostMemory memory;
    const auto choose = [&](const std::string& asked, double net, std::unique_ptr<PictureDecoders> decoders) {
        DeviceDecoding device;
        device.decoders = std::move(decoders);
        device.net_images_per_s = [net] { return net; };
        return choose_decoding(asked, "", std::move(device), *jpegs.source, loading_of(2), memory);
    };
    StandIn slow;
    slow.delay_us = 3000;
    // A net that takes next to nothing. The device stays as a remedy, should the CPU fall short after all.
    Makes<Black>* tried = nullptr;
    const auto black = [&] {
        auto decoders = std::make_unique<Makes<Black>>();
        tried = decoders.get();
        return decoders;
    };
    const int made_before = Makes<Black>::made_by_all;
    const Decoding ample = choose("auto", 1, black());
    CHECK(ample.way == "region");
    CHECK(ample.device_is_left);
    CHECK_FALSE(ample.decoders);
    CHECK(Makes<Black>::made_by_all == made_before);
    // One that takes more than the CPU makes, and a device that decodes for next to nothing, or is slow at it.
    const Decoding starved = choose("auto", 1e9, black());
    CHECK(starved.way == "gpu");
    CHECK(starved.decoders.get() == tried);
    CHECK(tried->made == 2);
    CHECK_FALSE(starved.device_is_left);
    const Decoding slower = choose("auto", 1e9, std::make_unique<Makes<StandIn>>(slow));
    CHECK(slower.way == "region");
    CHECK_FALSE(slower.device_is_left);
    CHECK(choose("region", 1, black()).device_is_left);
    CHECK_FALSE(choose("region", 1, nullptr).device_is_left);
    CHECK_FALSE(choose("gpu", 1, black()).device_is_left);
    CHECK(memory.in_use == 0);
}

TEST_CASE("decoding: the device pays where the net comes to a tenth more with it, though they may take turns") {
    for (const bool beside : {false, true}) {  // the net is not known: decoding alone
        CHECK(device_pays(1101, 1000, 0, beside));
        CHECK_FALSE(device_pays(1099, 1000, 0, beside));
    }
    // A third of a millisecond to decode and half a millisecond in the net: 1200 images/s.
    CHECK(net_with_device(3000, 2000, false) == doctest::Approx(1200));
    CHECK(device_pays(3000, 1000, 2000, false));
    CHECK(device_pays(3000, 1090, 2000, false));
    CHECK_FALSE(device_pays(3000, 1092, 2000, false));
    CHECK_FALSE(device_pays(2000, 1000, 2000, false));  // twice as fast at decoding, yet 1000 with either
    CHECK_FALSE(device_pays(1e9, 1000, 1000, false));   // the CPU keeps up
    // On an engine of its own: as many as the slower of the two.
    CHECK(net_with_device(3000, 2000, true) == 2000);
    CHECK(device_pays(2000, 1000, 2000, true));
    CHECK(device_pays(1640, 1204, 7107, true));
    CHECK_FALSE(device_pays(1e9, 1000, 1090, true));
}

TEST_CASE("decoding: what the net takes is timed in memory that is given back, whatever else its training does") {
    TrainerOptions setup;
    setup.net.model = "resnet18";
    setup.net.classes = 3;
    setup.net.image_size = 32;
    setup.net.batch = 2;
    setup.net.accumulate = 2;
    setup.mixed = true;
    setup.class_weights = {1, 2, 0.5f};
    const std::unique_ptr<Backend> backend = make_backend("cpu", 1);
    const auto start = std::chrono::steady_clock::now();
    const double rate = net_images_per_s(*backend, setup);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    CHECK(rate > 16 / took.count());  // eight steps of two are timed, and not all that was done
    CHECK(rate < 1e5);
}
