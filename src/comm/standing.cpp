#include "comm/standing.h"

#include <cmath>
#include <cstring>
#include <sstream>

#include "base/error.h"

namespace rn50 {

namespace {

/// FNV-1a over eight bytes more.
uint64_t mixed(uint64_t hash, uint64_t value) {
    for (int i = 0; i < 8; ++i)
        hash = (hash ^ (value >> 8 * i & 0xff)) * 0x100000001b3u;
    return hash;
}

}  // namespace

void Standing::enter(const CollectiveKind& kind) {
    ++place;
    for (const char* letter = kind.name; *letter != '\0'; ++letter)
        history = mixed(history, static_cast<unsigned char>(*letter));
    history = mixed(history, static_cast<uint64_t>(kind.bytes));
}

std::string numbers_of(const Standing& s) {
    return cat(s.place, " ", s.history, " ", s.progress, " ", static_cast<char>(s.pace), " ", s.usual_s, " ", s.signal);
}

bool numbers_from(const std::string& text, Standing& standing) {
    Standing s;
    char pace = 0;
    std::istringstream in(text);
    if (!(in >> s.place >> s.history >> s.progress >> pace >> s.usual_s >> s.signal)) return false;
    in >> std::ws;
    if (!in.eof() || std::strchr("bmslew", pace) == nullptr || pace == '\0') return false;
    if (!std::isfinite(s.usual_s) || s.usual_s < 0 || s.usual_s > 1e6 || s.signal < 0) return false;
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
