#include <CLI/CLI.hpp>
#include <cstdio>

int main() {
    CLI::App app;
    int value = 0;
    app.add_option("--value", value);
    app.parse("--value 3", false);
    std::puts(CLI11_VERSION);
    return value == 3 ? 0 : 1;
}
