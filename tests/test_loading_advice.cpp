// What a run says when its net waits for pictures: the arithmetic by hand, and no remedy that the facts rule out.
#include <doctest/doctest.h>

#include "cli/loading_advice.h"

using namespace rn50;

namespace {

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

/// 2500 images/s needed, 180 a worker: 13.9 workers. 10,000 JPEGs of 1024 x 1024, 175 KB each.
LoadingFacts photographs() {
    LoadingFacts facts;
    facts.images_per_s = 1500;
    facts.data_wait = 0.4;
    facts.images_per_worker_s = 180;
    facts.workers = 8;
    facts.cores = 12;
    facts.usable_memory = 20'000'000'000;
    facts.seen = {100, 100 * 175e3, 100 * 1048576.0, 100 * 1024.0, 100, 0, 0, -1};
    facts.pictures = 10'000;
    facts.image_size = 224;
    facts.data = "shop";
    return facts;
}

}  // namespace

TEST_CASE("loading advice: images/s needed and made, and more workers where there are cores for them") {
    LoadingFacts facts = photographs();
    facts.cores = 16;
    const std::string more = loading_advice(facts);
    CHECK(contains(more, "waited for pictures 40% of the time: it could take 2500 images/s, and 8 workers make 180"));
    CHECK(contains(more, "images/s each of pictures of 175 KB and 1.05 megapixels"));
    CHECK(contains(more, "It takes 14: --workers 14"));
    CHECK_FALSE(contains(more, "pack"));
    facts.cores = 13;
    CHECK(contains(loading_advice(facts), "It would take 14 on 13 cores. --workers 13 would make about 2,340 images/s. "
                                          "Beyond that, "));
    facts.workers = 13;
    CHECK(contains(loading_advice(facts), "It would take 14 on 13 cores. Instead, "));
    facts.workers = 8;
    facts.cores = 16;
    facts.net_uses_cores = true;
    CHECK(contains(loading_advice(facts), "It would take 14 on 16 cores, on which the net computes too. Instead, "));
}

TEST_CASE("loading advice: of several ranks, each needs its share, and has its share of the machine") {
    LoadingFacts facts = photographs();
    facts.images_per_s = 4800 * 0.9;  // 4800 in all were it not for the wait: 2400 each, 13.3 workers
    facts.data_wait = 0.1;
    facts.ranks = 2;
    facts.rank = 1;
    facts.ranks_here = 2;
    facts.cores = 28;
    const std::string both = loading_advice(facts);
    CHECK(contains(both, "10% of the time, longest in rank 1: each rank could take 2400 images/s, and 8 workers make"));
    CHECK(contains(both, "It takes 14 in each rank: --workers 14"));
    facts.cores = 27;  // 13 each
    CHECK(contains(loading_advice(facts), "It would take 14 in each rank on 27 cores, which 2 ranks share. --workers 13 would "
                                          "make about 2,340 images/s in each rank. Beyond that, "));
    facts.ranks_here = 1;  // on two machines of 27 cores
    CHECK(contains(loading_advice(facts), "It takes 14 in each rank: --workers 14"));
}

TEST_CASE("loading advice: a cache is named where the decoded pictures fit, with what they take") {
    LoadingFacts facts = photographs();
    // 10,000 x 1024 x 1024 x 3 bytes = 31.46 GB of 0.8 x 40 GB.
    facts.usable_memory = 40'000'000'000;
    CHECK(contains(loading_advice(facts), "--cache-mb 31458 (10,000 of 3.1 MB are 31.5 GB, and 40.0 GB are free)"));
    facts.usable_memory = 39'000'000'000;
    CHECK_FALSE(contains(loading_advice(facts), "--cache-mb"));
    facts.usable_memory = 78'000'000'000;  // for two ranks, each with all pictures
    facts.ranks = facts.ranks_here = 2;
    facts.images_per_s *= 2;
    CHECK_FALSE(contains(loading_advice(facts), "--cache-mb"));
    facts.usable_memory = 79'000'000'000;
    CHECK(contains(loading_advice(facts), "31.5 GB a rank"));
    facts.cache_bytes = 31'500'000'000;  // it is there, and full
    CHECK_FALSE(contains(loading_advice(facts), "--cache-mb"));
    facts.usable_memory = 0;
    facts.cache_bytes = 0;
    CHECK_FALSE(contains(loading_advice(facts), "--cache-mb"));
}

TEST_CASE("loading advice: smaller pictures and restart markers, where the pictures are large and have none") {
    LoadingFacts facts = photographs();
    const std::string large = loading_advice(facts);
    CHECK(contains(large,
                   "rn50 pack shop PACKED --format webdataset --shortest 256, then train on PACKED (1024 px now, "
                   "16 times the pixels)"));
    CHECK(contains(large, "rn50 pack shop PACKED --restart-markers"));
    facts.seen.marked = 100;
    CHECK_FALSE(contains(loading_advice(facts), "--restart-markers"));
    facts.seen.marked = 0;
    facts.crops = false;
    CHECK_FALSE(contains(loading_advice(facts), "--restart-markers"));
    facts.crops = true;
    facts.seen.jpegs = 0;
    CHECK_FALSE(contains(loading_advice(facts), "--restart-markers"));

    facts.seen = {100, 100 * 15e3, 100 * 256 * 256.0, 100 * 256.0, 100, 0, 0, -1};
    facts.pictures = 1'000'000;
    const std::string small = loading_advice(facts);
    CHECK_FALSE(contains(small, "pack"));
    CHECK(contains(small,
                   "Only more cores or less --augment would help: the pictures are small already (256 px), and "
                   "decoded they take 196.6 GB, more than the 20.0 GB that are free"));
}

TEST_CASE("loading advice: the GPU decodes where it can and was not found slower") {
    LoadingFacts facts = photographs();
    CHECK_FALSE(contains(loading_advice(facts), "--decode gpu"));
    facts.device_could_decode = true;
    CHECK(contains(loading_advice(facts), "--decode gpu"));
}

TEST_CASE("loading advice: enough workers that wait for a disk") {
    LoadingFacts facts = photographs();
    facts.images_per_worker_s = 400;
    const std::string files = loading_advice(facts);
    CHECK(contains(files, "the storage is slow or uneven"));
    CHECK(contains(files, "into large files: rn50 pack shop PACKED --format webdataset"));
    facts.in_files = false;
    CHECK_FALSE(contains(loading_advice(facts), "large files"));
}

TEST_CASE(
    "loading advice: bits that 16-bit pictures do not use are told when enough were seen, unless they are given") {
    // What is said once a process is asked as text here.
    PicturesSeen seen;
    seen.pictures = seen.deep = 64;
    seen.highest = 4095;
    const std::string told = unused_bits(seen, 0, false);
    CHECK(contains(told, "the 64 pictures of 16 bits seen so far stay at or below 4,095 of 65,535"));
    CHECK(contains(told, "no more than 17 grey levels"));
    CHECK(contains(told, "--bits 12?"));
    CHECK(unused_bits(seen, 12, false).empty());
    seen.highest = 1023;
    CHECK(contains(unused_bits(seen, 0, false), "--bits 10?"));
    seen.highest = 8191;
    CHECK(contains(unused_bits(seen, 0, false), "--bits 13?"));
    seen.highest = 8192;  // an eighth of the range
    CHECK(unused_bits(seen, 0, true).empty());
    seen.highest = 100;
    CHECK(contains(unused_bits(seen, 0, false), "--bits 8?"));
    seen.deep = 63;
    CHECK(unused_bits(seen, 0, false).empty());
    CHECK_FALSE(unused_bits(seen, 0, true).empty());
    seen.deep = 0;
    CHECK(unused_bits(seen, 0, true).empty());
}
