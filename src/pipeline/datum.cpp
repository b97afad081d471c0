#include "pipeline/datum.h"

#include "base/error.h"

namespace rn50 {

namespace {

// Fields of message Datum.
constexpr uint32_t field_channels = 1, field_height = 2, field_width = 3, field_data = 4, field_label = 5,
                   field_float_data = 6, field_encoded = 7, field_name = 1000;
constexpr int64_t max_side = 1 << 20;

}  // namespace

bool parse_datum(ByteView bytes, Datum& datum) {
    datum = Datum();
    ProtoReader reader(bytes);
    while (reader.next()) {
        const bool number = reader.is_varint(), block = reader.is_bytes();
        switch (reader.field()) {
            case field_channels:
                if (number) datum.channels = reader.integer();
                break;
            case field_height:
                if (number) datum.height = reader.integer();
                break;
            case field_width:
                if (number) datum.width = reader.integer();
                break;
            case field_data:
                if (block) datum.data = reader.bytes();
                break;
            case field_label:
                if (number) datum.label = reader.integer();
                break;
            case field_float_data:
                datum.has_floats = true;
                break;
            case field_encoded:
                if (number) datum.encoded = reader.value() != 0;
                break;
            case field_name:
                if (block) datum.name = reader.bytes();
                break;
            default:
                break;
        }
    }
    return reader.ok();
}

std::string fault_of(const Datum& datum) {
    if (datum.data.size == 0) return datum.has_floats ? "float_data is no picture" : "no picture (data)";
    if (datum.encoded) return "";
    const bool sides = datum.height > 0 && datum.width > 0 && datum.height <= max_side && datum.width <= max_side;
    if ((datum.channels != 1 && datum.channels != 3) || !sides) return "raw planes of a shape that is no picture";
    if (static_cast<uint64_t>(datum.channels * datum.height * datum.width) != datum.data.size)
        return "raw planes of another size than the shape says";
    return "";
}

void picture_of(const Datum& datum, std::vector<uint8_t>& picture) {
    RN50_REQUIRE(fault_of(datum).empty(), "a datum with a fault: ", fault_of(datum));
    if (datum.encoded) {
        picture.assign(datum.data.data, datum.data.data + datum.data.size);
        return;
    }
    const std::string head = cat(datum.channels == 3 ? "P6" : "P5", "\n", datum.width, " ", datum.height, "\n255\n");
    picture.assign(head.begin(), head.end());
    picture.resize(head.size() + datum.data.size);
    uint8_t* dst = picture.data() + head.size();
    const auto plane = static_cast<size_t>(datum.height * datum.width);
    for (size_t i = 0; i < plane; ++i)
        for (int64_t c = datum.channels; c > 0; --c)
            *dst++ = datum.data.data[static_cast<size_t>(c - 1) * plane + i];
}

std::string serialize_datum(ByteView picture, int64_t label, const std::string& name) {
    ProtoWriter datum;
    datum.bytes(field_data, picture.data, picture.size);
    datum.integer(field_label, label);
    datum.boolean(field_encoded, true);
    datum.string(field_name, name);
    return datum.str();
}

}  // namespace rn50
