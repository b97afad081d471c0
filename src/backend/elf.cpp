#include "backend/elf.h"

#include <elf.h>

#include <cstring>
#include <fstream>

namespace rn50 {

namespace {

class File {
  public:
    explicit File(const std::string& path) : in_(path, std::ios::binary | std::ios::ate) {
        if (in_) size_ = static_cast<uint64_t>(in_.tellg());
    }
    bool holds(uint64_t at, uint64_t bytes) const { return at <= size_ && bytes <= size_ - at; }
    bool read(uint64_t at, void* to, uint64_t bytes) {
        return holds(at, bytes) && in_.seekg(static_cast<std::streamoff>(at)) &&
               in_.read(static_cast<char*>(to), static_cast<std::streamsize>(bytes));
    }
    template <class T>
    std::vector<T> read_all(uint64_t at, uint64_t count) {
        if (count > size_ / sizeof(T)) return {};
        std::vector<T> values(count);
        if (!read(at, values.data(), count * sizeof(T))) values.clear();
        return values;
    }

  private:
    std::ifstream in_;
    uint64_t size_ = 0;
};

bool read_header(File& file, Elf64_Ehdr& header) {
    return file.read(0, &header, sizeof header) && std::memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 &&
           header.e_machine == EM_X86_64 && file.holds(header.e_shoff, uint64_t{header.e_shnum} * header.e_shentsize);
}

}  // namespace

bool is_whole_library(const std::string& path) {
    File file(path);
    Elf64_Ehdr header{};
    return read_header(file, header);
}

std::vector<std::string> libraries_needed(const std::string& path) {
    File file(path);
    Elf64_Ehdr header{};
    if (!read_header(file, header) || header.e_shentsize != sizeof(Elf64_Shdr)) return {};
    const auto sections = file.read_all<Elf64_Shdr>(header.e_shoff, header.e_shnum);
    std::vector<std::string> names;
    for (const Elf64_Shdr& section : sections) {
        if (section.sh_type != SHT_DYNAMIC || section.sh_link >= sections.size()) continue;
        const Elf64_Shdr& strings = sections[section.sh_link];
        const auto text = file.read_all<char>(strings.sh_offset, strings.sh_size);
        for (const Elf64_Dyn& entry :
             file.read_all<Elf64_Dyn>(section.sh_offset, section.sh_size / sizeof(Elf64_Dyn))) {
            if (entry.d_tag != DT_NEEDED || entry.d_un.d_val >= text.size()) continue;
            const char* const name = text.data() + entry.d_un.d_val;
            names.emplace_back(name, strnlen(name, text.size() - entry.d_un.d_val));
        }
    }
    return names;
}

}  // namespace rn50
