#include <gloo/config.h>
#include <gloo/transport/tcp/device.h>

#include <cstdio>

int main() {
    const auto device = gloo::transport::tcp::CreateDevice("localhost");
    std::printf("%d.%d.%d\n", GLOO_VERSION_MAJOR, GLOO_VERSION_MINOR, GLOO_VERSION_PATCH);
    return device ? 0 : 1;
}
