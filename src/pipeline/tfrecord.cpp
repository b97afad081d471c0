#include "pipeline/tfrecord.h"

#include <cstring>

#include "base/crc32c.h"
#include "base/error.h"
#include "pipeline/source.h"

namespace rn50 {

namespace {

uint32_t stored_crc(const uint8_t* at) {
    uint32_t crc;
    std::memcpy(&crc, at, sizeof crc);
    return crc;
}

/// One value of a feature's list; those of longer lists are not what we look for.
struct Value {
    bool has_bytes = false, has_number = false;
    ByteView bytes;
    int64_t number = 0;
};

/// tf.train.Feature: bytes_list = 1, float_list = 2, int64_list = 3, each with its values in field 1.
bool parse_feature(ByteView feature, Value& value) {
    ProtoReader reader(feature);
    while (reader.next()) {
        if (!reader.is_bytes()) continue;
        const uint32_t kind = reader.field();
        ProtoReader list(reader.bytes());
        while (list.next()) {
            if (list.field() != 1) continue;
            if (kind == 1 && list.is_bytes() && !value.has_bytes) {
                value.has_bytes = true;
                value.bytes = list.bytes();
            } else if (kind == 3 && !value.has_number) {
                uint64_t number = list.value();
                const uint8_t* at = list.bytes().data;
                if (list.is_bytes() && !take_varint(at, at + list.bytes().size, number)) continue;
                value.has_number = true;
                value.number = static_cast<int64_t>(number);
            }
        }
        if (!list.ok()) return false;
    }
    return reader.ok();
}

/// Keys by what they mean, the best first.
struct Slot {
    const char* const keys[3];
    int found = 3;  ///< place of the key that was taken
    Value value;

    void offer(const std::string& key, const Value& offered) {
        for (int i = 0; i < found; ++i) {
            if (keys[i] == nullptr || key != keys[i]) continue;
            found = i;
            value = offered;
            return;
        }
    }
};

void put_feature(ProtoWriter& features, const char* key, const ProtoWriter& list, uint32_t kind) {
    ProtoWriter feature, entry;
    feature.message(kind, list);
    entry.string(1, key);
    entry.message(2, feature);
    features.message(1, entry);
}

void put_bytes(ProtoWriter& features, const char* key, ByteView bytes) {
    ProtoWriter list;
    list.bytes(1, bytes.data, bytes.size);
    put_feature(features, key, list, 1);
}

void put_text(ProtoWriter& features, const char* key, const std::string& text) {
    put_bytes(features, key, {reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}

void put_number(ProtoWriter& features, const char* key, int64_t number) {
    ProtoWriter packed, list;
    packed.bare_varint(static_cast<uint64_t>(number));
    list.message(1, packed);
    put_feature(features, key, list, 3);
}

}  // namespace

bool parse_tfrecord_head(const uint8_t* head, uint64_t& length) {
    std::memcpy(&length, head, sizeof length);
    return masked_crc(crc32c(head, sizeof length)) == stored_crc(head + sizeof length);
}

bool tfrecord_data_is_right(ByteView record) {
    if (record.size < tfrecord_tail) return false;
    const size_t size = record.size - tfrecord_tail;
    return masked_crc(crc32c(record.data, size)) == stored_crc(record.data + size);
}

bool parse_example(ByteView bytes, Example& example) {
    example = Example();
    Slot picture{{"image/encoded", "image", nullptr}, 3, {}}, label{{"image/class/label", "label", nullptr}, 3, {}},
        text{{"image/class/text", nullptr, nullptr}, 3, {}},
        filename{{"image/filename", "filename", "file_name"}, 3, {}};
    ProtoReader outer(bytes);
    while (outer.next()) {
        if (outer.field() != 1 || !outer.is_bytes()) continue;
        ProtoReader features(outer.bytes());
        while (features.next()) {
            if (features.field() != 1 || !features.is_bytes()) continue;
            ByteView key, feature;
            ProtoReader entry(features.bytes());
            while (entry.next()) {
                if (entry.field() == 1) key = entry.bytes();
                if (entry.field() == 2) feature = entry.bytes();
            }
            Value value;
            if (!entry.ok() || !parse_feature(feature, value)) return false;
            if (key.size > 100) continue;
            for (Slot* slot : {&picture, &label, &text, &filename})
                slot->offer(key.str(), value);
        }
        if (!features.ok()) return false;
    }
    example.picture = picture.value.bytes;
    if (label.value.has_number) example.label = label.value.number;
    example.text = text.value.has_bytes ? text.value.bytes : label.value.bytes;
    example.filename = filename.value.bytes;
    return outer.ok();
}

std::string serialize_example(const ExampleFields& fields) {
    ProtoWriter features, example;
    put_number(features, "image/channels", 3);
    put_number(features, "image/class/label", fields.label);
    put_text(features, "image/class/text", fields.text);
    put_text(features, "image/colorspace", "RGB");
    put_bytes(features, "image/encoded", fields.picture);
    put_text(features, "image/filename", fields.filename);
    put_text(features, "image/format", fields.format);
    put_number(features, "image/height", fields.height);
    put_number(features, "image/width", fields.width);
    example.message(1, features);
    return example.str();
}

std::string tfrecord_of(const std::string& data) {
    const uint64_t length = data.size();
    const uint32_t length_crc = masked_crc(crc32c(&length, sizeof length));
    const uint32_t data_crc = masked_crc(crc32c(data.data(), data.size()));
    std::string record;
    record.reserve(data.size() + tfrecord_head + tfrecord_tail);
    record.append(reinterpret_cast<const char*>(&length), sizeof length);
    record.append(reinterpret_cast<const char*>(&length_crc), sizeof length_crc);
    record += data;
    record.append(reinterpret_cast<const char*>(&data_crc), sizeof data_crc);
    return record;
}

ShardIndex index_tfrecord(const RandomBytes& bytes, const std::string& name) {
    const auto fail = [&](const std::string& reason) {
        return Error(Exit::data, cat(name, ": ", reason), "copy or make the shard again");
    };
    ShardIndex index;
    std::vector<uint8_t> record;
    for (int64_t at = 0, number = 0; at < bytes.size; ++number) {
        uint8_t head[tfrecord_head];
        const int64_t got = bytes.read(at, head, tfrecord_head);
        uint64_t length = 0;
        const bool right = got == tfrecord_head && parse_tfrecord_head(head, length);
        // A length may begin with gzip's two bytes too.
        if (!right && at == 0 && got >= 2 && head[0] == 0x1F && head[1] == 0x8B)
            throw Error(Exit::data, cat(name, ": is compressed with gzip, which allows no random access"),
                        "unpack it, or write it without compression");
        if (got == tfrecord_head && !right)
            throw fail(at == 0 ? "is not a TFRecord file"
                               : cat("the length of record ", number, " at byte ", at, " has a wrong checksum"));
        const int64_t left = bytes.size - at - tfrecord_head - tfrecord_tail;
        if (got < tfrecord_head || left < 0 || length > static_cast<uint64_t>(left))
            throw fail(cat("is cut short within record ", number, ", which begins at byte ", at));
        if (length > largest_picture) throw fail(cat("record ", number, " has ", length, " bytes"));
        record.resize(length + tfrecord_tail);
        const auto wanted = static_cast<int64_t>(record.size());
        if (bytes.read(at + tfrecord_head, record.data(), wanted) < wanted)
            throw fail(cat("is cut short within record ", number, ", which begins at byte ", at));

        const std::string key = cat("record ", number);
        Example example;
        if (!tfrecord_data_is_right({record.data(), record.size()})) {
            index.leave_out("wrong checksum", key);
        } else if (!parse_example({record.data(), length}, example)) {
            index.leave_out("no tf.train.Example", key);
        } else if (example.picture.size == 0) {
            index.leave_out("no picture (image/encoded)", key);
        } else if (example.label == ShardIndex::no_label && example.text.size == 0) {
            index.leave_out("no label (image/class/label)", key);
        } else {
            ShardIndex::Entry entry;
            entry.offset = at + tfrecord_head;
            entry.bytes = static_cast<int64_t>(length);
            entry.label = example.label;
            if (example.text.size > 0) entry.class_name = index.intern(example.text.str());
            index.add(entry, example.filename.size > 0 ? example.filename.str() : key);
        }
        at += tfrecord_head + wanted;
    }
    return index;
}

}  // namespace rn50
