#include <cstdio>
#include <nlohmann/json.hpp>

int main() {
    const nlohmann::json value = nlohmann::json::parse("[3]");
    std::printf("%d.%d.%d\n", NLOHMANN_JSON_VERSION_MAJOR, NLOHMANN_JSON_VERSION_MINOR, NLOHMANN_JSON_VERSION_PATCH);
    return value[0] == 3 ? 0 : 1;
}
