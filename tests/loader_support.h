// Pictures for the tests of the loader, and what it makes of them.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "pipeline/loader.h"
#include "pipeline_support.h"

namespace rn50::test {

class Data {
  public:
    explicit Data(int count, const std::vector<int>& bad = {}) {
        for (int i = 0; i < count; ++i) {
            const std::string name = cat(i % 2 ? "b" : "a", "/", 1000 + i, ".ppm");
            if (std::find(bad.begin(), bad.end(), i) != bad.end())
                folder_.write(name, std::string("not a picture"));
            else
                folder_.write_picture(name, i);
        }
        source = make_folder_source(folder_.path());
    }
    std::unique_ptr<Source> source;

  private:
    TempFolder folder_;
};

inline LoaderOptions options_of(int64_t batch_size, int workers) {
    LoaderOptions options;
    options.batch_size = batch_size;
    options.workers = workers;
    options.seed = 11;
    options.shuffle = true;
    options.drop_last = true;
    options.replace_bad = true;
    options.pictures.image_size = 6;
    options.pictures.augment = Augment::crop;
    options.pictures.jitter_contrast = 0.3f;
    return options;
}

inline LoaderOptions evaluation_of(int64_t batch_size, int workers) {
    LoaderOptions options = options_of(batch_size, workers);
    options.shuffle = options.drop_last = options.replace_bad = false;
    options.pictures.augment = Augment::none;
    return options;
}

/// All that a batch holds, copied.
struct Copy {
    std::vector<uint8_t> images;
    std::vector<int32_t> labels;
    std::vector<int64_t> indices;
    bool operator==(const Copy& other) const {
        return images == other.images && labels == other.labels && indices == other.indices;
    }
};

inline std::vector<Copy> rest_of_epoch(Loader& loader) {
    std::vector<Copy> copies;
    while (const Batch* batch = loader.next()) {
        REQUIRE(batch->images.shape == Shape{batch->count, 6, 6, 3});
        REQUIRE(batch->labels.shape == Shape{batch->count});
        REQUIRE(static_cast<int64_t>(batch->indices.size()) == batch->count);
        const uint8_t* images = batch->images.as<uint8_t>();
        const int32_t* labels = batch->labels.as<int32_t>();
        copies.push_back({{images, images + batch->images.count()}, {labels, labels + batch->count}, batch->indices});
    }
    return copies;
}

inline std::vector<int64_t> indices_of(const std::vector<Copy>& batches) {
    std::vector<int64_t> all;
    for (const Copy& batch : batches)
        all.insert(all.end(), batch.indices.begin(), batch.indices.end());
    return all;
}

}  // namespace rn50::test
