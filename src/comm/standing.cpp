#include "comm/standing.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <sstream>

#include "base/error.h"

namespace rn50 {

namespace {

/// FNV-1a over eight bytes more.
uint32_t mixed(uint32_t hash, uint64_t value) {
    for (int i = 0; i < 8; ++i)
        hash = (hash ^ static_cast<uint32_t>(value >> 8 * i & 0xff)) * 0x01000193u;
    return hash;
}

/// Digits of a hash, in hexadecimal; what stands for no hash at all.
constexpr size_t digits = 8;
constexpr const char* none = "-";

}  // namespace

void Standing::enter(const CollectiveKind& kind) {
    ++place;
    uint32_t hash = recent.empty() ? 0x811c9dc5u : recent.back();
    for (const char* letter = kind.name; *letter != '\0'; ++letter)
        hash = mixed(hash, static_cast<unsigned char>(*letter));
    if (recent.size() == most_recent) recent.erase(recent.begin());
    recent.push_back(mixed(hash, static_cast<uint64_t>(kind.bytes)));
}

std::optional<uint32_t> Standing::hash_after(uint64_t count) const {
    const uint64_t back = entered() - count;
    if (count == 0 || count > entered() || back >= recent.size()) return {};
    return recent[recent.size() - 1 - static_cast<size_t>(back)];
}

std::string numbers_of(const Standing& s) {
    std::string hashes;
    for (const uint32_t hash : s.recent) {
        char text[digits + 1];
        std::snprintf(text, sizeof text, "%08x", hash);
        hashes += text;
    }
    return cat(s.place, " ", s.progress, " ", static_cast<char>(s.pace), " ", s.usual_s, " ", s.signal, " ",
               hashes.empty() ? none : hashes);
}

bool numbers_from(const std::string& text, Standing& standing) {
    Standing s;
    char pace = 0;
    std::istringstream in(text);
    std::string hashes;
    if (!(in >> s.place >> s.progress >> pace >> s.usual_s >> s.signal >> hashes)) return false;
    in >> std::ws;
    if (!in.eof() || std::strchr("bmslew", pace) == nullptr || pace == '\0') return false;
    if (!std::isfinite(s.usual_s) || s.usual_s < 0 || s.usual_s > 1e6 || s.signal < 0) return false;
    if (hashes == none) hashes.clear();
    if (hashes.size() % digits != 0 || hashes.size() > digits * Standing::most_recent ||
        hashes.find_first_not_of("0123456789abcdef") != std::string::npos)
        return false;
    for (size_t i = 0; i < hashes.size(); i += digits)
        s.recent.push_back(static_cast<uint32_t>(std::stoul(hashes.substr(i, digits), nullptr, 16)));
    s.pace = static_cast<Pace>(pace);
    standing = s;
    return true;
}

std::string words_for(const CollectiveKind& kind) {
    return kind.bytes > 0 ? cat(kind.name, " of ", kind.bytes, " bytes") : kind.name;
}

std::string doing(const Standing& standing) {
    if (standing.inside()) return cat("waits in ", standing.collective.empty() ? "a collective" : standing.collective);
    switch (standing.pace) {
        case Pace::starting:
            return "starts up";
        case Pace::loading:
            return "waits for its pictures";
        case Pace::evaluating:
            return "evaluates";
        case Pace::saving:
            return "saves";
        default:
            return "computes, or waits for its GPU";
    }
}

}  // namespace rn50
