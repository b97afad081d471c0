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

GradientAveraging::GradientAveraging(Context& ctx, Communicator& comm, const Net& net, int64_t bucket_bytes)
    : ctx_(ctx),
      comm_(comm),
      net_(net),
      bounds_(bucket_bounds(net.table(), bucket_bytes / size_of(net.state().gradients.dtype))) {}

void GradientAveraging::ready(int64_t from) {
    for (; begun_ + 1 < bounds_.size() && bounds_[begun_ + 1] >= from; ++begun_) {
        const int64_t begin = bounds_[begun_ + 1], count = bounds_[begun_] - begin;
        if (!ctx_.dry) comm_.begin_average(net_.state().gradients.slice(begin, count));
    }
}

void GradientAveraging::finish() {
    RN50_REQUIRE(begun_ + 1 == bounds_.size(), begun_, " of ", bounds_.size() - 1, " buckets were averaged");
    begun_ = 0;
    if (!ctx_.dry) comm_.finish_averages();
}

}  // namespace rn50
