// Messages of the store: a length, a letter, texts.
#pragma once

#include <arpa/inet.h>

#include <cstdint>
#include <cstring>
#include <sstream>
#include <string>

namespace rn50::wire {

constexpr uint32_t longest_message = 1 << 20;
/// Before a rank is known, no message is longer.
constexpr uint32_t longest_greeting = 1024;
/// The first line of a greeting.
constexpr const char* greeting = "rn50 store 2";

enum Letter : char {
    greet = 'H',
    set = 'S',
    get = 'G',
    beat = 'B',
    farewell = 'X',
    done = '.',
    absent = '-',
    refused = '!'
};

inline void put_number(std::string& to, uint32_t value) {
    const uint32_t ordered = htonl(value);
    to.append(reinterpret_cast<const char*>(&ordered), sizeof ordered);
}

inline uint32_t number_at(const char* from) {
    uint32_t ordered = 0;
    std::memcpy(&ordered, from, sizeof ordered);
    return ntohl(ordered);
}

/// A whole message; `body` is what follows the letter.
inline std::string message(char letter, const std::string& body) {
    std::string text;
    put_number(text, static_cast<uint32_t>(body.size() + 1));
    text += letter;
    return text + body;
}

inline void put_text(std::string& to, const std::string& text) {
    put_number(to, static_cast<uint32_t>(text.size()));
    to += text;
}

/// Takes one text from `body` at `place`, which moves behind it. False when there is none.
inline bool take_text(const std::string& body, size_t& place, std::string& text) {
    if (body.size() - place < 4) return false;
    const uint32_t length = number_at(body.data() + place);
    if (body.size() - place - 4 < length) return false;
    text = body.substr(place + 4, length);
    place += 4 + length;
    return true;
}

/// Who greets: the first text of a greeting, beside the token.
struct Guest {
    int rank = -1, size = 0;    ///< size 0: it does not say how many ranks there are
    std::string process, host;  ///< one word each; a process greets by the same one on all its connections
    std::string run;            ///< Place::run
};

inline std::string text_of(const Guest& guest) {
    std::ostringstream text;
    text << greeting << '\n'
         << guest.rank << ' ' << guest.size << ' ' << guest.process << ' ' << guest.host << '\n'
         << guest.run;
    return text.str();
}

/// False when the text is no greeting of this version.
inline bool guest_from(const std::string& text, Guest& guest) {
    std::istringstream in(text);
    std::string first, second;
    std::getline(in, first);
    std::getline(in, second);
    std::getline(in, guest.run, '\0');
    std::istringstream words(second);
    return first == greeting && words >> guest.rank >> guest.size >> guest.process >> guest.host;
}

}  // namespace rn50::wire
