#include "train/averaging.h"

namespace rn50 {

std::vector<int64_t> bucket_bounds(const ParameterTable& table, int64_t elements) {
    std::vector<int64_t> bounds{table.parameter_elements()};
    const int64_t small = elements / 16;
    if (elements > 0 && bounds[0] > small) {
        const std::vector<Parameter>& parameters = table.parameters();
        int64_t last = 0;
        for (const Parameter& parameter : parameters)
            if (parameter.offset <= small) last = parameter.offset;
        int64_t wanted = small;
        for (size_t i = parameters.size(); i-- > 1;) {
            const int64_t begin = parameters[i].offset;
            if (begin != last && (begin < last || bounds.back() - begin < wanted)) continue;
            bounds.push_back(begin);
            wanted = elements;
        }
    }
    bounds.push_back(0);
    return bounds;
}

GradientAveraging::GradientAveraging(Backend& backend, Context& ctx, Communicator& comm, const Net& net,
                                     int64_t bucket_bytes, DType wire)
    : backend_(backend),
      ctx_(ctx),
      comm_(comm),
      net_(net),
      bounds_(bucket_bounds(net.table(), bucket_bytes / size_of(wire))) {
    if (wire != DType::f32) wire_ = ctx_.arena.alloc(Use::wire, wire, net_.state().gradients.shape);
}

GradientAveraging::~GradientAveraging() {
    ctx_.arena.release(wire_);
}

void GradientAveraging::ready(int64_t from) {
    for (; begun_ + 1 < bounds_.size() && bounds_[begun_ + 1] >= from; ++begun_) {
        const int64_t begin = bounds_[begun_ + 1], count = bounds_[begun_] - begin;
        Tensor bucket = net_.state().gradients.slice(begin, count);
        if (wire_) {
            backend_.convert(ctx_, bucket, wire_.slice(begin, count));
            bucket = wire_.slice(begin, count);
        }
        if (!ctx_.dry) comm_.begin_average(bucket);
    }
}

void GradientAveraging::finish() {
    RN50_REQUIRE(begun_ + 1 == bounds_.size(), begun_, " of ", bounds_.size() - 1, " buckets were averaged");
    if (!ctx_.dry) comm_.finish_averages();
    if (wire_) backend_.convert(ctx_, wire_, net_.state().gradients);
}

}  // namespace rn50
