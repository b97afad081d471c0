#include <cstdio>
#include <oneapi/dnnl/dnnl.hpp>

static_assert(DNNL_VERSION_MAJOR > 2 || (DNNL_VERSION_MAJOR == 2 && DNNL_VERSION_MINOR >= 6),
              "rn50 needs 2.6 or newer");

int main() {
    const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    const dnnl_version_t* version = dnnl_version();
    std::printf("%d.%d.%d\n", version->major, version->minor, version->patch);
    return engine.get_kind() == dnnl::engine::kind::cpu ? 0 : 1;
}
