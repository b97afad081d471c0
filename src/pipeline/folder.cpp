// Folders of pictures: which files count and which class they belong to.
#include "pipeline/folder.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>

#include "base/error.h"
#include "base/interrupt.h"

namespace rn50 {

namespace {

Error unreadable_folder(const std::string& path) {
    const char* remedy = errno == EACCES    ? "give yourself the right to read it (chmod u+rx)"
                         : errno == ENOENT  ? "check the path"
                         : errno == ENOTDIR ? "name a folder that holds a folder for each class"
                                            : "";
    return Error(Exit::data, cat(path, ": the folder cannot be read: ", std::strerror(errno)), remedy);
}

/// ".jpg" in lower case, or "".
std::string extension_of(const std::string& name) {
    const size_t dot = name.rfind('.');
    if (dot == std::string::npos) return {};
    std::string extension = name.substr(dot);
    for (char& c : extension)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return extension;
}

}  // namespace

bool is_picture_name(const std::string& name) {
    const std::string extension = extension_of(name);
    for (const char* known : {".jpg", ".jpeg", ".png", ".bmp", ".tga", ".ppm", ".pgm"})
        if (extension == known) return true;
    return false;
}

std::string join(const std::string& folder, const std::string& name) {
    return folder.empty() || folder.back() == '/' ? folder + name : folder + "/" + name;
}

bool is_folder(const std::string& path) {
    struct stat status;
    return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

/// A million files are listed here, so stat is called only where the folder itself does not tell the type.
Listing list_folder(const std::string& path) {
    struct Closer {
        void operator()(DIR* folder) const { closedir(folder); }
    };
    const std::unique_ptr<DIR, Closer> folder(opendir(path.c_str()));
    if (!folder) throw unreadable_folder(path);
    Listing listing;
    for (;;) {
        errno = 0;
        const dirent* entry = readdir(folder.get());
        if (!entry && errno) throw unreadable_folder(path);
        if (!entry) break;
        if (entry->d_name[0] == '.') continue;
        int type = entry->d_type;
        if (type != DT_REG && type != DT_DIR) {
            // A dangling link counts as a file: reading it will say by name what is wrong with it.
            type = is_folder(join(path, entry->d_name)) ? DT_DIR : type == DT_UNKNOWN || type == DT_LNK ? DT_REG : type;
        }
        if (type == DT_DIR) listing.folders.push_back(entry->d_name);
        if (type == DT_REG) listing.files.push_back(entry->d_name);
    }
    std::sort(listing.folders.begin(), listing.folders.end());
    std::sort(listing.files.begin(), listing.files.end());
    return listing;
}

std::string list_some(const std::vector<std::string>& names) {
    std::string text;
    for (size_t i = 0; i < names.size() && i < 5; ++i)
        text += (i ? ", " : "") + names[i];
    return names.size() > 5 ? cat(text, ", ... (", names.size(), ")") : text;
}

namespace {

struct Identity {
    dev_t device;
    ino_t inode;
    bool operator==(const Identity& other) const { return device == other.device && inode == other.inode; }
};

/// Files met that are no pictures to us: said, so that a folder of .tif does not look empty for no reason.
struct Ignored {
    int64_t count = 0;
    std::string example;
    std::map<std::string, int64_t> extensions;

    void add(const std::string& path, const std::string& name) {
        if (count++ == 0) example = path;
        const std::string extension = extension_of(name);
        ++extensions[extension.empty() ? "no extension" : extension];
    }
    std::string describe() const {
        std::string kinds;
        for (const auto& [extension, n] : extensions) {
            if (kinds.size() > 60) {
                kinds += ", ...";
                break;
            }
            kinds += cat(kinds.empty() ? "" : ", ", n, " ", extension);
        }
        return cat(count, count == 1 ? " file is" : " files are", " not of a kind that is read (", kinds, "), e.g. ",
                   example);
    }
};

/// Appends the paths of all pictures below `folder`. `above` are the folders on the way here: a link back to one of
/// them would be followed for ever.
void gather(const std::string& folder, std::vector<Identity>& above, std::vector<std::string>& paths,
            Ignored& ignored) {
    stop_if_interrupted();
    struct stat status;
    if (stat(folder.c_str(), &status) != 0) throw unreadable_folder(folder);
    const Identity self{status.st_dev, status.st_ino};
    if (std::find(above.begin(), above.end(), self) != above.end()) return;
    above.push_back(self);
    const Listing listing = list_folder(folder);
    for (const std::string& name : listing.files) {
        if (is_picture_name(name))
            paths.push_back(join(folder, name));
        else
            ignored.add(join(folder, name), name);
    }
    for (const std::string& name : listing.folders)
        gather(join(folder, name), above, paths, ignored);
    above.pop_back();
}

struct Scan {
    std::vector<Sample> samples;
    std::vector<std::string> classes;
    std::vector<std::string> empty;  ///< classes without a picture
    std::string ignored;             ///< what was met that is no picture; "" if nothing
};

Scan scan_folder(const std::string& root, const std::vector<std::string>* known) {
    const std::vector<std::string> folders = list_folder(root).folders;
    if (folders.empty())
        throw Error(Exit::data, cat(root, ": there is no class folder in it"),
                    cat("put the pictures of each class into a folder of their own: ", join(root, "CLASS/*.jpg")));
    Scan scan;
    scan.classes = known ? *known : folders;
    std::map<std::string, int32_t> labels;
    for (size_t i = 0; i < scan.classes.size(); ++i)
        labels[scan.classes[i]] = static_cast<int32_t>(i);

    Ignored ignored;
    std::vector<std::string> unknown;
    std::vector<int64_t> counts(scan.classes.size());
    for (const std::string& name : folders) {
        const auto label = labels.find(name);
        if (label == labels.end()) {
            unknown.push_back(name);
            continue;
        }
        std::vector<std::string> paths;
        std::vector<Identity> above;
        gather(join(root, name), above, paths, ignored);
        std::sort(paths.begin(), paths.end());
        counts[static_cast<size_t>(label->second)] = static_cast<int64_t>(paths.size());
        for (std::string& path : paths)
            scan.samples.push_back({std::move(path), label->second});
    }
    for (size_t i = 0; i < counts.size(); ++i)
        if (counts[i] == 0) scan.empty.push_back(scan.classes[i]);

    if (!unknown.empty())
        throw Error(
            Exit::data,
            cat(root, ": ", unknown.size() == 1 ? "class " : "classes ", list_some(unknown),
                unknown.size() == 1 ? " is" : " are", " not among the ", scan.classes.size(), " classes of training"),
            "give training pictures of it, or remove or rename the folder");
    if (ignored.count) scan.ignored = ignored.describe();
    const std::string hint = scan.ignored.empty() ? "" : "; " + scan.ignored;
    if (scan.samples.empty())
        throw Error(Exit::data, cat(root, ": there is no picture in its class folders", hint),
                    "pictures are files named .jpg .jpeg .png .bmp .tga .ppm .pgm");
    if (!scan.empty.empty() && !known)
        throw Error(Exit::data,
                    cat(join(root, scan.empty[0]), ": there is no picture in this class folder",
                        scan.empty.size() > 1 ? cat(" (nor in ", scan.empty.size() - 1, " others)") : "", hint),
                    "put pictures (.jpg .jpeg .png .bmp .tga .ppm .pgm) into it or remove it");
    return scan;
}

/// The source of a scan; what it met on the way goes to `warnings`.
std::unique_ptr<Source> source_of(Scan scan, const std::string& root, bool needs_all_classes,
                                  std::vector<std::string>& warnings) {
    if (needs_all_classes && !scan.empty.empty())
        warnings.push_back(
            cat(root, " has no picture of ", scan.empty.size() == 1 ? "class " : "classes ", list_some(scan.empty)));
    if (!scan.ignored.empty()) warnings.push_back(cat(root, ": ", scan.ignored));
    return make_list_source(std::move(scan.samples), std::move(scan.classes), root);
}

}  // namespace

std::unique_ptr<Source> open_extra_folder(const std::string& path, const std::vector<std::string>& classes,
                                          std::vector<std::string>& warnings) {
    const std::vector<std::string> folders = list_folder(path).folders;
    if (folders.empty()) return nullptr;
    std::vector<std::string> unknown;
    for (const std::string& folder : folders)
        if (std::find(classes.begin(), classes.end(), folder) == classes.end()) unknown.push_back(folder);
    if (unknown.size() == folders.size()) return nullptr;  // something else altogether
    if (!unknown.empty()) {
        warnings.push_back(cat(path, " is not used: ", list_some(unknown), " in it ",
                               unknown.size() == 1 ? "is" : "are", " not among the classes of training"));
        return nullptr;
    }
    return source_of(scan_folder(path, &classes), path, false, warnings);
}

std::unique_ptr<Source> make_folder_source(const std::string& root, const std::vector<std::string>* known_classes,
                                           std::vector<std::string>* warnings) {
    std::vector<std::string> unheard;
    return source_of(scan_folder(root, known_classes), root, true, warnings ? *warnings : unheard);
}

}  // namespace rn50
