// The parameter table against torchvision's, starting values, layouts, and what a net takes of its arena.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "base/exact.h"
#include "environment.h"
#include "model/net.h"
#include "op_support.h"

using namespace rn50;
using namespace rn50::test;

namespace {

NetDesc small(const std::string& model) {
    NetDesc desc;
    desc.model = model;
    desc.classes = 10;
    desc.image_size = 32;
    desc.batch = 4;
    desc.eval_batch = 5;
    return desc;
}

std::unique_ptr<Backend> cpu() {
    return make_backend("cpu");
}

const Parameter& row(const ParameterTable& table, const std::string& name) {
    const auto& rows = table.parameters();
    const auto found = std::find_if(rows.begin(), rows.end(), [&](const Parameter& p) { return p.name == name; });
    REQUIRE_MESSAGE(found != rows.end(), name);
    return *found;
}

/// A net with its inputs in an arena: one training step, one evaluation.
struct Drive {
    Backend& backend;
    Net& net;
    Arena& arena;
    Context ctx;
    Tensor pictures, labels, loss, diff_logits, eval_pictures, eval_logits, state, dropout_step;

    Drive(Backend& on, Net& of, Arena& in) : backend(on), net(of), arena(in), ctx{in, in.counting()} {
        const NetDesc& desc = net.desc();
        net.allocate(ctx);
        const auto pictures_of = [&](int64_t batch) {
            return Shape{batch, desc.image_size, desc.image_size, desc.channels};
        };
        pictures = arena.alloc(Use::input, DType::u8, pictures_of(desc.batch));
        eval_pictures = arena.alloc(Use::input, DType::u8, pictures_of(desc.eval_batch));
        labels = arena.alloc(Use::input, DType::i32, {desc.batch});
        loss = arena.alloc(Use::activations, DType::f32, {desc.batch});
        diff_logits = arena.alloc(Use::activation_gradients, DType::f32, {desc.batch, desc.classes});
        eval_logits = arena.alloc(Use::activations, DType::f32, {desc.eval_batch, desc.classes});
        state = arena.alloc(Use::optimizer, DType::u8, {static_cast<int64_t>(sizeof(StepState))});
        dropout_step = arena.alloc(Use::input, DType::i32, {1});
        backend.zero(ctx, dropout_step);
        if (!ctx.dry) fill();
    }

    void fill() {
        // One value a pixel block, so that a net of 32 pixels sees more than noise.
        const auto noise = [&](const Tensor& tensor) {
            std::vector<uint8_t> bytes(static_cast<size_t>(tensor.bytes()));
            for (size_t i = 0; i < bytes.size(); ++i)
                bytes[i] = static_cast<uint8_t>((i / 48 * 2654435761u >> 16) % 200 + i % 50);
            backend.copy_in(ctx, bytes.data(), tensor);
            backend.synchronize(ctx);
        };
        noise(pictures);
        noise(eval_pictures);
        std::vector<int32_t> classes(static_cast<size_t>(net.desc().batch));
        for (size_t i = 0; i < classes.size(); ++i)
            classes[i] = static_cast<int32_t>(i % static_cast<size_t>(net.desc().classes));
        std::vector<float> values = net.table().initial_values(7);
        for (const Parameter& parameter : net.table().parameters())  // gammas of 0 would hide whole branches
            if (parameter.init == Init::zero && parameter.name.find("weight") != std::string::npos)
                std::fill_n(values.begin() + parameter.offset, parameter.count(), 0.5f);
        const std::vector<float> running = net.table().initial_running();
        const StepState step;
        backend.copy_in(ctx, classes.data(), labels);
        backend.copy_in(ctx, values.data(), net.state().parameters);
        backend.copy_in(ctx, running.data(), net.state().running);
        backend.copy_in(ctx, &step, state);
        backend.synchronize(ctx);
    }

    void train() {
        const Tensor logits = net.forward(ctx, pictures, DropoutKey{3, dropout_step, 0});
        backend.softmax_cross_entropy(ctx, logits, labels, 0.1f, state, loss, diff_logits);
        net.backward(ctx, diff_logits);
        net.update_running(ctx, state);
    }

    void infer(int64_t n) {
        net.begin_inference(ctx);
        net.infer(ctx, eval_pictures.slice(0, n), eval_logits.slice(0, n));
        net.end_inference(ctx);
    }

    std::vector<float> get(const Tensor& tensor) {
        std::vector<float> values(static_cast<size_t>(tensor.count()));
        backend.copy_out(ctx, tensor, values.data());
        return values;
    }
};

int64_t planned_peak(Backend& backend, Net& net) {
    Arena arena;
    Drive drive(backend, net, arena);
    drive.train();
    drive.infer(net.desc().eval_batch);
    return arena.plan().peak;
}

}  // namespace

TEST_CASE("the parameter table is torchvision's") {
    const auto backend = cpu();
    const std::pair<const char*, int64_t> counts[] = {{"resnet18", 11689512},
                                                      {"resnet34", 21797672},
                                                      {"resnet50", 25557032},
                                                      {"resnet101", 44549160},
                                                      {"resnet152", 60192808}};
    REQUIRE(model_names().size() == 5);
    for (const auto& [model, count] : counts) {
        INFO(model);
        NetDesc desc = small(model);
        desc.classes = 1000;
        desc.training = false;
        CHECK(make_net(*backend, desc)->table().trained_count() == count);
    }
    NetDesc desc = small("resnet50");
    desc.classes = 1000;
    desc.training = false;
    const auto net = make_net(*backend, desc);
    const ParameterTable& table = net->table();
    const auto& rows = table.parameters();
    CHECK(rows.size() == 161);
    CHECK(table.running().size() == 53);
    const char* first[] = {"conv1.weight",
                           "bn1.weight",
                           "bn1.bias",
                           "layer1.0.conv1.weight",
                           "layer1.0.bn1.weight",
                           "layer1.0.bn1.bias",
                           "layer1.0.conv2.weight",
                           "layer1.0.bn2.weight",
                           "layer1.0.bn2.bias",
                           "layer1.0.conv3.weight",
                           "layer1.0.bn3.weight",
                           "layer1.0.bn3.bias",
                           "layer1.0.downsample.0.weight"};
    for (size_t i = 0; i < std::size(first); ++i)
        CHECK(rows[i].name == first[i]);
    CHECK(rows[159].name == "fc.weight");
    CHECK(rows[160].name == "fc.bias");
    CHECK(row(table, "conv1.weight").torch_dims() == std::vector<int64_t>{64, 3, 7, 7});
    CHECK(row(table, "layer2.0.conv2.weight").torch_dims() == std::vector<int64_t>{128, 128, 3, 3});
    CHECK(row(table, "layer4.0.downsample.0.weight").torch_dims() == std::vector<int64_t>{2048, 1024, 1, 1});
    CHECK(row(table, "fc.weight").torch_dims() == std::vector<int64_t>{1000, 2048});
    CHECK(table.running()[0].name == "bn1");
    CHECK(table.running()[4].name == "layer1.0.downsample.1");
    CHECK(table.running()[52].name == "layer4.2.bn3");
    for (const Parameter& parameter : rows) {
        CHECK(parameter.offset % 64 == 0);
        CHECK(parameter.decay == (parameter.shape.rank() > 1));
    }
}

TEST_CASE("decayed ranges and the others cover the rows without overlap") {
    const auto backend = cpu();
    NetDesc desc = small("resnet18");
    desc.training = false;
    const auto net = make_net(*backend, desc);
    const std::vector<ParameterRange> ranges = net->table().ranges();
    int64_t end = 0;
    for (const ParameterRange& range : ranges) {
        CHECK(range.begin >= end);
        CHECK(range.end > range.begin);
        end = range.end;
    }
    CHECK(end <= net->table().parameter_elements());
    for (const Parameter& parameter : net->table().parameters()) {
        const auto holds = [&](const ParameterRange& range) {
            return range.begin <= parameter.offset && parameter.offset + parameter.count() <= range.end;
        };
        const auto found = std::find_if(ranges.begin(), ranges.end(), holds);
        REQUIRE(found != ranges.end());
        CHECK(found->decay == parameter.decay);
    }
}

TEST_CASE("an unknown model and a picture too small are refused with what there is") {
    const auto backend = cpu();
    NetDesc desc = small("resnet51");
    try {
        make_net(*backend, desc);
        FAIL("made");
    } catch (const Error& error) {
        CHECK(error.code() == Exit::usage);
        CHECK(error.remedy().find("resnet50") != std::string::npos);
    }
    desc = small("resnet18");
    desc.image_size = 16;
    CHECK_THROWS_AS(make_net(*backend, desc), Error);
}

TEST_CASE("the own logarithm and normal quantiles are the library's") {
    for (double x = 1e-10; x < 1; x *= 1.0371)
        CHECK(exact_log(x) == doctest::Approx(std::log(x)).epsilon(1e-14));
    for (double p = 1e-10; p < 1; p += p < 0.02 ? p * 0.31 : 0.00317) {
        // Through the library's error function: the probability below the quantile is p again.
        const double below = 0.5 * std::erfc(-normal_quantile(p) / std::sqrt(2.0));
        CHECK(below == doctest::Approx(p).epsilon(1e-7));
        CHECK(normal_quantile(1 - p) == doctest::Approx(-normal_quantile(p)).epsilon(1e-6));
    }
}

TEST_CASE("starting values have the moments and quantiles of their distributions") {
    ParameterTable table;
    table.add("conv.weight", {256, 3, 3, 64}, Init::kaiming_fan_out, 256 * 9, true);
    table.add("fc.weight", {70, 2048}, Init::uniform_fan_in, 2048, true);
    table.add("bn.weight", {65}, Init::one, 0, false);
    table.add("bn.bias", {65}, Init::zero, 0, false);
    table.add_running("bn", 65);
    const std::vector<float> values = table.initial_values(11);
    const auto part = [&](int i) {
        const Parameter& p = table.parameters()[static_cast<size_t>(i)];
        return std::vector<float>(values.begin() + p.offset, values.begin() + p.offset + p.count());
    };

    std::vector<float> normal = part(0);
    const double deviation = std::sqrt(2.0 / (256 * 9)), n = static_cast<double>(normal.size());
    double sum = 0, squares = 0;
    for (const float v : normal) {
        sum += v;
        squares += static_cast<double>(v) * v;
    }
    CHECK(std::abs(sum / n) < 4 * deviation / std::sqrt(n));
    CHECK(std::sqrt(squares / n) == doctest::Approx(deviation).epsilon(4 / std::sqrt(2 * n)));
    std::sort(normal.begin(), normal.end());
    const std::pair<double, double> quantiles[] = {{0.0013499, -3}, {0.0227501, -2}, {0.1586553, -1}, {0.5, 0},
                                                   {0.8413447, 1},  {0.9772499, 2},  {0.9986501, 3}};
    for (const auto& [p, x] : quantiles) {
        const double density = std::exp(-x * x / 2) / std::sqrt(2 * 3.14159265358979);
        const double found = normal[static_cast<size_t>(p * n)] / deviation;
        CHECK(std::abs(found - x) < 4 * std::sqrt(p * (1 - p) / n) / density);
    }

    const std::vector<float> uniform = part(1);
    const double bound = 1 / std::sqrt(2048.0);
    CHECK(*std::max_element(uniform.begin(), uniform.end()) == doctest::Approx(bound).epsilon(1e-3));
    CHECK(*std::min_element(uniform.begin(), uniform.end()) == doctest::Approx(-bound).epsilon(1e-3));
    CHECK(part(2) == std::vector<float>(65, 1.0f));
    CHECK(part(3) == std::vector<float>(65, 0.0f));
    const Parameter& gamma = table.parameters()[2];
    for (int64_t gap = gamma.offset + gamma.count(); gap < table.parameters()[3].offset; ++gap)
        CHECK(values[static_cast<size_t>(gap)] == 0);

    std::vector<float> running(65, 0.0f);
    running.resize(130, 1.0f);
    running.resize(static_cast<size_t>(table.running_elements()), 0.0f);
    CHECK(table.initial_running() == running);

    CHECK(values == table.initial_values(11));
    const std::vector<float> other = table.initial_values(12);
    CHECK(!std::equal(other.begin(), other.begin() + 100, values.begin()));
    // By name, not by place: a row of another table starts alike.
    ParameterTable alone;
    alone.add("fc.weight", {70, 2048}, Init::uniform_fan_in, 2048, true);
    CHECK(std::equal(uniform.begin(), uniform.end(), alone.initial_values(11).begin()));
}

TEST_CASE("weights go to torchvision's layout and back") {
    Parameter parameter;
    parameter.shape = {2, 3, 3, 4};
    std::vector<float> device(72), torch(72), back(72);
    for (size_t i = 0; i < 72; ++i)
        device[i] = static_cast<float>(i);
    to_torch_layout(parameter, device.data(), torch.data());
    // Output channel 1, input channel 2, row 0, column 1.
    CHECK(torch[((1 * 4 + 2) * 3 + 0) * 3 + 1] == device[((1 * 3 + 0) * 3 + 1) * 4 + 2]);
    from_torch_layout(parameter, torch.data(), back.data());
    CHECK(back == device);
    parameter.shape = {9, 8};
    to_torch_layout(parameter, device.data(), torch.data());
    CHECK(torch == device);
}

TEST_CASE("a step takes the memory that it took dry, and gives it back") {
    const ArenaMode mode("shared");
    const auto backend = cpu();
    for (const char* model : {"resnet18", "resnet50"})
        for (const bool lean : {false, true}) {
            INFO(model, lean ? " lean" : "");
            NetDesc desc = small(model);
            desc.lean = lean;
            const auto net = make_net(*backend, desc);
            const int64_t peak = planned_peak(*backend, *net);
            Arena arena(backend->memory(), peak);
            Drive drive(*backend, *net, arena);
            const int64_t before = arena.in_use();
            for (int round = 0; round < 2; ++round) {
                drive.train();
                CHECK(arena.in_use() == before);
                drive.infer(net->desc().eval_batch);
                CHECK(arena.in_use() == before);
            }
            CHECK(arena.plan().peak == peak);
        }
}

TEST_CASE("lean makes the same gradients, bit by bit, in less memory") {
    const auto backend = cpu();
    for (const char* model : {"resnet18", "resnet50"}) {
        INFO(model);
        std::vector<float> gradients[2], running[2];
        int64_t peaks[2];
        for (const bool lean : {false, true}) {
            NetDesc desc = small(model);
            desc.lean = lean;
            const auto net = make_net(*backend, desc);
            peaks[lean] = planned_peak(*backend, *net);
            Arena arena(backend->memory(), peaks[lean]);
            Drive drive(*backend, *net, arena);
            drive.train();
            gradients[lean] = drive.get(net->state().gradients);
            running[lean] = drive.get(net->state().running);
        }
        CHECK(gradients[0] == gradients[1]);
        CHECK(running[0] == running[1]);
        CHECK(peaks[1] <= peaks[0]);
    }
    // Where activations outweigh the parameters.
    NetDesc desc = small("resnet50");
    desc.batch = 16;
    desc.image_size = 224;
    const auto keep = make_net(*backend, desc);
    desc.lean = true;
    const auto lean = make_net(*backend, desc);
    CHECK(static_cast<double>(planned_peak(*backend, *lean)) <
          0.92 * static_cast<double>(planned_peak(*backend, *keep)));
}

TEST_CASE("inference answers for each picture alike, however many there are") {
    const auto backend = cpu();
    const auto net = make_net(*backend, small("resnet50"));
    Arena arena(backend->memory(), planned_peak(*backend, *net));
    Drive drive(*backend, *net, arena);
    drive.train();
    drive.infer(5);
    const std::vector<float> all = drive.get(drive.eval_logits);
    CHECK(std::set<float>(all.begin(), all.end()).size() > 10);
    drive.infer(2);
    const std::vector<float> two = drive.get(drive.eval_logits.slice(0, 2));
    for (size_t i = 0; i < two.size(); ++i)
        CHECK(two[i] == doctest::Approx(all[i]).epsilon(1e-4));
}

TEST_CASE("a net made for inference has no gradients and refuses to train") {
    const auto backend = cpu();
    NetDesc desc = small("resnet18");
    desc.training = false;
    const auto net = make_net(*backend, desc);
    Arena arena;
    Drive drive(*backend, *net, arena);
    CHECK(!net->state().gradients);
    CHECK(!net->state().observed);
    CHECK_THROWS_AS(drive.train(), Error);
    drive.infer(3);
}
