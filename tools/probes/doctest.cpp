#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

TEST_CASE("probe") {
    CHECK(1 + 1 == 2);
}

int main() {
    doctest::Context context;
    context.setOption("minimal", true);
    context.setOption("no-intro", true);
    context.setOption("no-version", true);
    std::puts(DOCTEST_VERSION_STR);
    return context.run();
}
