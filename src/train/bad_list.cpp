#include "train/bad_list.h"

#include <string>

#include "base/error.h"
#include "base/log.h"
#include "comm/wire.h"

namespace rn50 {

std::vector<BadPicture> BadList::take_new() {
    const std::vector<BadPicture>& bad = loader_.bad();
    std::vector<BadPicture> news(bad.begin() + static_cast<ptrdiff_t>(taken_), bad.end());
    taken_ = bad.size();
    return news;
}

void BadList::add(const std::vector<BadPicture>& mine) {
    std::string text;
    for (const BadPicture& bad : mine)
        for (const std::string& part : {std::to_string(bad.index), bad.name, bad.reason})
            wire::put_text(text, part);
    for (const std::string& of_rank : comm_ != nullptr ? comm_->gather(text) : std::vector<std::string>{text}) {
        std::string index, name, reason;
        for (size_t at = 0; wire::take_text(of_rank, at, index) && wire::take_text(of_rank, at, name) &&
                            wire::take_text(of_rank, at, reason);) {
            const BadPicture bad{std::stoll(index), name, reason};
            if (!known_.insert(bad.index).second) continue;
            of_ranks_.push_back(bad);
            tell(bad);
        }
    }
    loader_.require_few(of_ranks_);
}

void BadList::tell_new() {
    for (const BadPicture& bad : take_new())
        tell(bad);
}

void BadList::tell(const BadPicture& bad) {
    run_.log_bad_picture(bad.name, bad.reason);
    if (comm_ == nullptr || comm_->rank() == 0)
        log::warn_once("bad pictures", cat("skipped ", bad.name, ": ", bad.reason, "; such pictures are listed in ",
                                           run_.file("bad_pictures.txt")));
}

}  // namespace rn50
