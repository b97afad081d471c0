#include <cstdlib>
#include <cstring>

#include "backend/cpu/kernels.h"

namespace rn50::cpu {

namespace v2 { extern const Kernels table; }
namespace v3 { extern const Kernels table; }
namespace v4 { extern const Kernels table; }

const Kernels* kernels_for(const char* isa) {
    __builtin_cpu_init();
    const bool has_v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    const bool has_v4 = has_v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512cd");
    if (!std::strcmp(isa, "v4")) return has_v4 ? &v4::table : nullptr;
    if (!std::strcmp(isa, "v3")) return has_v3 ? &v3::table : nullptr;
    return std::strcmp(isa, "v2") ? nullptr : &v2::table;
}

const Kernels& kernels() {
    static const Kernels& chosen = []() -> const Kernels& {
        const char* asked = std::getenv("RN50_ISA");
        for (const char* isa : {"v4", "v3"}) {
            if (asked && std::strcmp(asked, isa) < 0) continue;
            if (const Kernels* table = kernels_for(isa)) return *table;
        }
        return *kernels_for("v2");
    }();
    return chosen;
}

}  // namespace rn50::cpu
