// What the self-test runs: every op of the backend page, on small inputs.
#pragma once

#include <vector>

#include "cli/self_test_side.h"

namespace rn50::doctor {

struct Check {
    const char* op;
    bool of_f32_alone;  ///< no activations: the same in every precision
    void (*run)(Side& side);
};

/// All ops, in the order of the page.
const std::vector<Check>& self_test_checks();

}  // namespace rn50::doctor
