// "did you mean ...?": the nearest known word.
#pragma once

#include <string>
#include <vector>

namespace rn50 {

/// The least number of insertions, deletions, substitutions and swaps of neighbours that turns a into b.
int edit_distance(const std::string& a, const std::string& b);

/// The candidate nearest to `word`, or "" when none is near enough to be what was meant. A candidate that begins with
/// `word` (of three letters or more) counts as near.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace rn50
