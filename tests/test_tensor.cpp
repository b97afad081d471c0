#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "base/random.h"
#include "environment.h"
#include "tensor/arena.h"
#include "tensor/tensor.h"

using namespace rn50;
using rn50::test::ArenaMode;

namespace {

/// Host memory that counts what it lends.
class CountingMemory : public Memory {
  public:
    void* allocate(int64_t bytes) override {
        lent += bytes;
        ++blocks;
        return std::aligned_alloc(Arena::alignment, static_cast<size_t>((bytes + Arena::alignment - 1) /
                                                                        Arena::alignment * Arena::alignment));
    }
    void release(void* data, int64_t bytes) override {
        lent -= bytes;
        std::free(data);
    }
    void fill(void* data, int value, int64_t bytes) override { std::memset(data, value, static_cast<size_t>(bytes)); }

    int64_t lent = 0;
    int blocks = 0;
};

/// A run of allocations and releases such as a training step's: `steps` draws decide between them. Gives the distance
/// of every tensor from the first one.
std::vector<int64_t> drive(Arena& arena, int steps) {
    Random random(5, 0, 0, Purpose::demo);
    std::vector<int64_t> offsets;
    std::vector<Tensor> live;
    const char* first = nullptr;
    for (int i = 0; i < steps; ++i) {
        if (live.size() > 12 || (!live.empty() && random.below(3) == 0)) {
            const size_t victim = random.below(live.size());
            arena.release(live[victim]);
            live.erase(live.begin() + static_cast<std::ptrdiff_t>(victim));
        } else {
            const Shape shape{1 + static_cast<int64_t>(random.below(4)), 1 + static_cast<int64_t>(random.below(5000))};
            live.push_back(arena.alloc(static_cast<Use>(random.below(9)), DType::f32, shape));
            const char* data = static_cast<const char*>(live.back().data);
            if (!first) first = data;
            offsets.push_back(data - first);
        }
    }
    for (Tensor& tensor : live)
        arena.release(tensor);
    return offsets;
}

Exit exit_of(const std::function<void()>& call) {
    try {
        call();
    } catch (const Error& error) {
        return error.code();
    }
    return Exit::ok;
}

}  // namespace

TEST_CASE("a shape counts in 64 bits, compares and prints") {
    CHECK(Shape{256, 512, 512, 64}.count() == int64_t{256} * 512 * 512 * 64);
    CHECK(Shape{}.count() == 1);
    CHECK(Shape{}.rank() == 0);
    CHECK(Shape{3, 0}.count() == 0);
    CHECK(Shape{8, 56, 56, 64}.str() == "8x56x56x64");
    CHECK(Shape{2, 3} == Shape{2, 3});
    CHECK(Shape{2, 3} != Shape{3, 2});
    CHECK(Shape{2} != Shape{2, 1});
    CHECK(exit_of([] { (void)Shape{1, 2, 3, 4, 5}; }) == Exit::internal);
    CHECK(exit_of([] { (void)Shape{-1}; }) == Exit::internal);
}

TEST_CASE("a tensor knows its bytes, refuses the wrong type, and slices and reshapes in place") {
    std::vector<float> values(24);
    for (size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<float>(i);
    const Tensor tensor{values.data(), DType::f32, {4, 2, 3}};
    CHECK(static_cast<bool>(tensor));
    CHECK_FALSE(static_cast<bool>(Tensor{}));
    CHECK(tensor.bytes() == 96);
    CHECK(Tensor{nullptr, DType::bf16, {3}}.bytes() == 6);
    CHECK(Tensor{nullptr, DType::i64, {3}}.bytes() == 24);
    CHECK(exit_of([&] { tensor.as<int32_t>(); }) == Exit::internal);

    const Tensor middle = tensor.slice(1, 2);
    CHECK(middle.shape == Shape{2, 2, 3});
    CHECK(middle.as<float>()[0] == 6.0f);
    CHECK(tensor.slice(4, 0).count() == 0);
    CHECK(exit_of([&] { tensor.slice(3, 2); }) == Exit::internal);
    CHECK(exit_of([&] { tensor.slice(-1, 1); }) == Exit::internal);

    CHECK(tensor.reshaped({24}).as<float>()[23] == 23.0f);
    CHECK(exit_of([&] { tensor.reshaped({25}); }) == Exit::internal);
}

TEST_CASE("the same calls give the same places dry and real, within the peak, and the dry run foretells the peak") {
    const ArenaMode mode("shared");
    Arena dry;
    CHECK(dry.counting());
    const std::vector<int64_t> planned = drive(dry, 2000);
    CHECK(dry.in_use() == 0);

    CountingMemory memory;
    {
        Arena real(memory, dry.plan().peak);
        CHECK_FALSE(real.counting());
        CHECK(memory.lent == dry.plan().peak);
        CHECK(drive(real, 2000) == planned);
        CHECK(real.plan().peak == dry.plan().peak);
        CHECK(real.plan().by_use == dry.plan().by_use);
        CHECK(memory.blocks == 1);
        CHECK(drive(real, 2000) == planned);  // and again: nothing of the first round is left
    }
    CHECK(memory.lent == 0);
}

TEST_CASE("tensors that live together never overlap") {
    const ArenaMode mode("shared");
    Arena dry;
    drive(dry, 500);
    CountingMemory memory;
    Arena arena(memory, dry.plan().peak * 2);
    Random random(9, 0, 0, Purpose::demo);
    std::vector<std::pair<Tensor, int>> live;
    for (int i = 0; i < 500; ++i) {
        if (live.size() > 10) {
            const size_t victim = random.below(live.size());
            auto& [tensor, mark] = live[victim];
            const int32_t* values = tensor.as<int32_t>();
            CHECK(std::all_of(values, values + tensor.count(), [m = mark](int32_t v) { return v == m; }));
            arena.release(tensor);
            live.erase(live.begin() + static_cast<std::ptrdiff_t>(victim));
        }
        live.emplace_back(arena.alloc(Use::activations, DType::i32, {1 + static_cast<int64_t>(random.below(3000))}), i);
        const Tensor& tensor = live.back().first;
        CHECK(reinterpret_cast<uintptr_t>(tensor.data) % Arena::alignment == 0);
        std::fill_n(tensor.as<int32_t>(), tensor.count(), i);
    }
}

TEST_CASE("the smallest gap that is large enough is taken, and neighbours that are free become one") {
    Arena arena;
    const auto take = [&](int64_t kib) { return arena.alloc(Use::workspace, DType::u8, {kib * 1024}); };
    Tensor a = take(8), wall1 = take(1), b = take(3), wall2 = take(1), c = take(5), wall3 = take(1);
    void *const place_a = a.data, *const place_b = b.data, *const place_c = c.data;
    arena.release(a);
    arena.release(b);
    arena.release(c);
    Tensor fits_c = take(4), fits_b = take(3), fits_a = take(8);
    CHECK(fits_c.data == place_c);
    CHECK(fits_b.data == place_b);
    CHECK(fits_a.data == place_a);
    CHECK(arena.plan().peak == 19 * 1024);

    arena.release(fits_a);
    arena.release(fits_b);
    arena.release(wall1);
    Tensor joined = take(12);
    CHECK(joined.data == place_a);
    CHECK(arena.plan().peak == 19 * 1024);
    for (Tensor* tensor : {&joined, &fits_c, &wall2, &wall3})
        arena.release(*tensor);
    CHECK(arena.in_use() == 0);
}

TEST_CASE("the plan names what filled the peak") {
    Arena arena;
    Tensor weights = arena.alloc(Use::parameters, DType::f32, {1000});
    Tensor big = arena.alloc(Use::activations, DType::f32, {100000});
    arena.release(big);
    Tensor small = arena.alloc(Use::gradients, DType::f32, {1000});
    const MemoryPlan& plan = arena.plan();
    const auto bytes = [&](Use use) { return plan.by_use[static_cast<size_t>(use)]; };
    CHECK(bytes(Use::parameters) == 4096);  // 4000 bytes, in steps of the alignment
    CHECK(bytes(Use::activations) == 400128);
    CHECK(bytes(Use::gradients) == 0);
    CHECK(plan.peak == 404224);
    CHECK(plan.table().find("activations") < plan.table().find("parameters"));
    CHECK(plan.table().find("gradients") == std::string::npos);
    arena.release(weights);
    arena.release(small);
}

TEST_CASE("the plan names what libraries have of a workspace, and what lies beside the arena") {
    Arena arena;
    Tensor weights = arena.alloc(Use::parameters, DType::f32, {1000});
    Tensor workspace = arena.alloc_workspace(10000, 7680);
    arena.release(workspace);
    Tensor smaller = arena.alloc_workspace(5000, 0);
    MemoryPlan plan = arena.plan();
    const auto bytes = [&](Use use) { return plan.by_use[static_cast<size_t>(use)]; };
    CHECK(plan.peak == 4096 + 10240);  // in steps of the alignment, which is nobody's own
    CHECK(bytes(Use::library_workspace) == 7680);
    CHECK(bytes(Use::workspace) == 10240 - 7680);
    CHECK(plan.total() == plan.peak);
    plan.beside = {{"exchange of the ranks", 4000000}, {"nothing", 0}};
    CHECK(plan.total() == plan.peak + 4000000);
    CHECK(plan.table() ==
          "  exchange of the ranks            4.0 MB\n"
          "  library workspace                0.0 MB\n"
          "  parameters                       0.0 MB\n"
          "  workspace                        0.0 MB\n"
          "  peak                             4.0 MB\n");
    CHECK_THROWS_AS(arena.alloc_workspace(10, 11), Error);
    arena.release(weights);
    arena.release(smaller);
}

TEST_CASE("a plan that was wrong is an error about memory, and a stranger's tensor one about the program") {
    const ArenaMode mode("shared");
    CountingMemory memory;
    Arena arena(memory, 4096);
    Tensor half = arena.alloc(Use::activations, DType::u8, {2048});
    CHECK(exit_of([&] { arena.alloc(Use::activations, DType::u8, {2049}); }) == Exit::device);
    CHECK(arena.in_use() == 2048);
    char elsewhere = 0;
    Tensor stranger{&elsewhere, DType::u8, {1}};
    CHECK(exit_of([&] { arena.release(stranger); }) == Exit::internal);
    Tensor copy = half;
    arena.release(half);
    CHECK_FALSE(static_cast<bool>(half));
    CHECK(exit_of([&] { arena.release(copy); }) == Exit::internal);  // given back twice
    arena.release(half);                                             // absent: ignored
}

TEST_CASE("nan mode fills released memory with NaN") {
    const ArenaMode mode("nan");
    CountingMemory memory;
    Arena arena(memory, 8192);
    Tensor tensor = arena.alloc(Use::activations, DType::f32, {64});
    CHECK(std::isnan(tensor.as<float>()[0]));
    const Tensor dangling = tensor;
    std::fill_n(tensor.as<float>(), 64, 1.0f);
    arena.release(tensor);
    for (int i = 0; i < 64; ++i)
        CHECK(std::isnan(dangling.as<float>()[i]));
}

TEST_CASE(
    "memory that cannot be filled any more, as of a lost GPU, still goes back while another error is on its way") {
    struct LostMemory : CountingMemory {
        void fill(void* data, int value, int64_t bytes) override {
            if (lost) throw Error(Exit::device, "the GPU was lost");
            CountingMemory::fill(data, value, bytes);
        }
        bool lost = false;
    };
    for (const char* name : {"nan", "separate"}) {
        const ArenaMode mode(name);
        LostMemory memory;
        Arena arena(memory, 8192);
        const auto step = [&] {
            const Scratch scratch(arena, DType::f32, {64});
            memory.lost = true;
            throw Error(Exit::diverged, "first");
        };
        CHECK(exit_of(step) == Exit::diverged);
        CHECK(arena.in_use() == 0);
    }
}

TEST_CASE("separate mode gives each tensor memory of its own and all of it back") {
    const ArenaMode mode("separate");
    CountingMemory memory;
    {
        Arena arena(memory, int64_t{1} << 40);  // nothing is taken beforehand
        CHECK(memory.lent == 0);
        Tensor a = arena.alloc(Use::activations, DType::f32, {10});
        Tensor b = arena.alloc(Use::activations, DType::f32, {10});
        CHECK(memory.lent == 80);
        CHECK(arena.plan().peak == 80);
        void* const place = a.data;
        arena.release(a);
        CHECK(std::isnan(static_cast<float*>(place)[9]));
        Tensor other = arena.alloc(Use::activations, DType::f32, {11});
        CHECK(other.data != place);
        Tensor again = arena.alloc(Use::activations, DType::f32, {10});
        CHECK(again.data == place);
        for (Tensor* tensor : {&b, &other, &again})
            arena.release(*tensor);
        CHECK(arena.in_use() == 0);
    }
    CHECK(memory.lent == 0);
}

TEST_CASE("an unknown mode is refused") {
    const ArenaMode mode("seperate");
    CountingMemory memory;
    CHECK(exit_of([&] { Arena(memory, 4096); }) == Exit::internal);
}

TEST_CASE("scratch goes back at the end of its scope") {
    Arena arena;
    {
        const Scratch scratch(arena, DType::f32, {100});
        CHECK(scratch.tensor().shape == Shape{100});
        CHECK(arena.in_use() == 512);
    }
    CHECK(arena.in_use() == 0);
}
