#include "comm/nccl_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

#include "base/error.h"

namespace rn50 {

namespace {

int kept = -1;  ///< the file; open as long as the process lives

/// A file in the folder of temporary files that nobody else can open by name; -1 where there is none to be had.
int file_without_name() {
    const char* const folder = std::getenv("TMPDIR");
    std::string name = cat(folder == nullptr || *folder == '\0' ? "/tmp" : folder, "/rn50-nccl-XXXXXX");
    const int file = mkostemp(name.data(), O_CLOEXEC);
    if (file >= 0) unlink(name.c_str());
    return file;
}

/// The number at `at`, which then stands behind it; -1 where there is none.
int take_number(const std::string& text, size_t& at) {
    int number = -1;
    for (; at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])) != 0; ++at)
        number = std::min(std::max(number, 0) * 10 + (text[at] - '0'), 100'000'000);
    return number;
}

/// "7" and "7[3]": a rank, and its GPU, which is of no interest.
int take_rank(const std::string& text, size_t& at) {
    const int rank = take_number(text, at);
    if (at < text.size() && text[at] == '[') {
        at = text.find(']', at);
        if (at == std::string::npos) return -1;
        ++at;
    }
    return rank;
}

/// Without the parts that are numbers: "NET/IB/0/GDRDMA" and "NET/Socket/1(3)/Shared" become "NET/IB/GDRDMA" and
/// "NET/Socket/Shared".
std::string without_numbers(const std::string& way) {
    std::string text;
    std::istringstream parts(way);
    for (std::string part; std::getline(parts, part, '/');)
        if (!part.empty() && std::isdigit(static_cast<unsigned char>(part[0])) == 0)
            text += (text.empty() ? "" : "/") + part;
    return text;
}

/// "... Channel 00/0 : 0[0] -> 1[1] [send] via NET/Socket/0": whether this line is of that kind.
bool link_in(const std::string& line, NcclLink& link) {
    const size_t channel = line.find(" Channel "), arrow = line.find(" -> ");
    if (channel == std::string::npos || arrow == std::string::npos || arrow < channel) return false;
    const size_t colon = line.find(" : ", channel), via = line.find(" via ", arrow);
    if (colon == std::string::npos || colon > arrow || via == std::string::npos) return false;
    size_t from = colon + 3, to = arrow + 4;
    link.from = take_rank(line, from);
    link.to = take_rank(line, to);
    const size_t way = via + 5;
    link.way = without_numbers(line.substr(way, line.find_first_of(" \r", way) - way));
    return from == arrow && link.from >= 0 && link.to >= 0 && !link.way.empty();
}

/// What a way is, in words.
std::string word_for(const std::string& way) {
    const std::array<std::pair<const char*, const char*>, 4> known{
        {{"P2P/", "peer-to-peer"}, {"SHM", "the host's memory"}, {"NET/Socket", "sockets"}, {"NET/IB", "InfiniBand"}}};
    for (const auto& [begin, word] : known)
        if (way.rfind(begin, 0) == 0) return word;
    return "another way";
}

/// Whether one of the files from which NCCL takes variables that are not set says what becomes of the log.
bool log_is_configured() {
    const auto variable = [](const char* name) {
        const char* const value = std::getenv(name);
        return std::string(value == nullptr ? "" : value);
    };
    for (const std::string& file :
         {variable("NCCL_CONF_FILE"), variable("HOME") + "/.nccl.conf", std::string("/etc/nccl.conf")}) {
        std::ifstream lines(file);
        for (std::string line; std::getline(lines, line);)
            if (line.rfind("NCCL_DEBUG", 0) == 0) return true;
    }
    return false;
}

}  // namespace

void keep_nccl_log() {
    if (kept >= 0 || std::getenv("NCCL_DEBUG") != nullptr || std::getenv("NCCL_DEBUG_FILE") != nullptr) return;
    if (log_is_configured()) return;
    kept = file_without_name();
    if (kept < 0) return;
    // NCCL opens what it is given by name; by this one it opens the file that has none.
    setenv("NCCL_DEBUG_FILE", cat("/proc/self/fd/", kept).c_str(), 0);
    setenv("NCCL_DEBUG", "INFO", 0);
}

std::string nccl_log() {
    std::string text;
    std::array<char, 65536> piece;
    if (kept < 0) return text;
    for (ssize_t count = 0; (count = pread(kept, piece.data(), piece.size(), static_cast<off_t>(text.size()))) > 0;)
        text.append(piece.data(), static_cast<size_t>(count));
    return text;
}

std::vector<NcclLink> links_in(const std::string& nccl_log) {
    std::vector<NcclLink> links;
    std::istringstream lines(nccl_log);
    NcclLink link;
    for (std::string line; std::getline(lines, line);)
        if (link_in(line, link) && std::find(links.begin(), links.end(), link) == links.end()) links.push_back(link);
    return links;
}

std::string text_of(const std::vector<NcclLink>& links) {
    std::string text;
    for (const NcclLink& link : links)
        text += cat(link.from, " ", link.to, " ", link.way, "\n");
    return text;
}

std::vector<NcclLink> links_from(const std::string& text) {
    std::vector<NcclLink> links;
    std::istringstream words(text);
    for (NcclLink link; words >> link.from >> link.to >> link.way;)
        links.push_back(link);
    return links;
}

std::string ways_of(const std::vector<NcclLink>& links) {
    std::map<std::string, std::vector<NcclLink>> by_way;
    for (const NcclLink& link : links) {
        std::vector<NcclLink>& known = by_way[link.way];  // both ends of a link tell of it
        if (std::find(known.begin(), known.end(), link) == known.end()) known.push_back(link);
    }
    std::vector<std::pair<size_t, std::string>> ways;
    for (const auto& [way, of_way] : by_way)
        ways.emplace_back(of_way.size(), way);
    std::stable_sort(ways.begin(), ways.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    std::string text;
    for (const auto& [count, way] : ways)
        text += cat(text.empty() ? "" : ", ", word_for(way), " (", way, "; ", count, count == 1 ? " link)" : " links)");
    return text;
}

}  // namespace rn50
