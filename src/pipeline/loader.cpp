#include "pipeline/loader.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "base/machine.h"
#include "base/math.h"
#include "pipeline/patience.h"
#include "pipeline/sample_maker.h"

namespace rn50 {

namespace {

std::vector<int32_t> labels_of(const Source& source) {
    std::vector<int32_t> labels(static_cast<size_t>(source.size()));
    for (size_t i = 0; i < labels.size(); ++i)
        labels[i] = source.label(static_cast<int64_t>(i));
    return labels;
}

/// A batch in the making. Workers write pictures to their places; what they find bad they note at the place.
struct Slot {
    struct Place {
        int64_t index = -1;  ///< what was put here; -1: nothing
        std::vector<BadPicture> bad;
        bool gave_up = false;  ///< so many bad ones in a row that the limit is passed
        std::exception_ptr failure;
    };
    uint8_t* images = nullptr;
    int32_t* labels = nullptr;
    int32_t* partners = nullptr;
    pixel::Changes* changes = nullptr;  ///< null where the pictures are whole
    std::vector<Place> places;
    int64_t todo = 0;  ///< places not yet done, and one more for mixing where that is asked for
    Mix mix;
    Batch batch;
};

/// What one worker owns and reuses from picture to picture.
struct Hand {
    explicit Hand(std::unique_ptr<PictureDecoder> device) : maker(std::move(device)) {}
    SampleMaker maker;
    std::vector<uint8_t> mixing;
};

/// The pictures of one batch of this rank: positions [begin, begin + count) of the epoch's order.
struct Range {
    int64_t begin, count;
};

}  // namespace

struct Loader::State {
    State(const Source& source, const LoaderOptions& options, Memory& memory);
    ~State();

    Range range_of(int64_t batch) const;
    int64_t todo_of(int64_t batch) const;
    int64_t allowed_bad() const;
    void start(int64_t epoch, int64_t first_batch);
    void make_order();
    void halt();
    void work(Hand& hand);
    void read_ahead(int64_t batch, int64_t place) const;
    void fill(Slot& slot, int64_t place, int64_t position, Hand& hand);
    bool try_picture(Draw draw, uint8_t* dst, pixel::Changes* changes, Slot::Place& place, Hand& hand);
    bool pause(double seconds);
    Slot& wait_for(std::unique_lock<std::mutex>& lock, int64_t batch);
    void mix(Slot& slot, int64_t batch, Hand& hand);
    const Batch* deliver(Slot& slot);
    void note_bad(const Slot::Place& place);
    [[noreturn]] void throw_too_many_bad(const std::vector<BadPicture>& bad_ones) const;

    const Source& source;
    const LoaderOptions options;
    const ReadPatience patience{options.read_patience_s, false, [this](double seconds) { return pause(seconds); }};
    Memory& memory;
    int64_t image_bytes, slot_bytes, batches;
    char* block = nullptr;
    std::vector<Slot> slots;

    // What workers and the consumer share, under `mutex`.
    std::mutex mutex;
    std::condition_variable work_ready, batch_ready, all_idle, stopping;
    bool running = false;  ///< an epoch is being loaded
    bool ending = false;   ///< the workers shall end
    int active = 0;        ///< workers at a picture
    double worked = 0;     ///< seconds that workers spent at pictures
    int64_t pictures_made = 0;
    Decoded decoded{};
    PicturesSeen seen;
    double rate_before = 0;  ///< rate() of the epoch before
    double rate() const { return worked > 0 ? static_cast<double>(pictures_made) / worked : 0; }
    int64_t next_batch = 0, next_place = 0;  ///< the next picture to hand out
    int64_t free_until = 0;                  ///< batches below it may be loaded: the ring has a slot for them
    int64_t epoch = 0;
    std::vector<Draw> order;  ///< not changed while workers are active
    std::optional<BalancedSampler> balanced;

    // The consumer's own.
    int64_t read_batch = 0;
    bool holds_batch = false;
    double waited = 0;
    std::vector<BadPicture> bad;
    std::set<int64_t> bad_indices;
    std::vector<std::unique_ptr<Hand>> hands;  ///< by worker
    std::vector<std::thread> threads;
};

Loader::State::State(const Source& source_, const LoaderOptions& options_, Memory& memory_)
    : source(source_), options(options_), memory(memory_) {
    RN50_REQUIRE(options.batch_size > 0 && options.ranks > 0 && options.rank >= 0 && options.rank < options.ranks,
                 "a loader of batch ", options.batch_size, ", rank ", options.rank, " of ", options.ranks);
    const int64_t n = source.size(), global = options.batch_size * options.ranks;
    RN50_REQUIRE(!options.mix || (options.replace_bad && options.drop_last), "mixing takes whole batches");
    RN50_REQUIRE(
        !options.changes_apart || (options.replace_bad && !options.mix && options.pictures.augment != Augment::none &&
                                   belongs_to_pixels(options.pictures)),
        "pictures cannot be left unchanged with these options");
    if (options.balanced) balanced.emplace(labels_of(source));
    const int64_t step = options.accumulate * global;
    batches = options.drop_last ? n / step * options.accumulate : ceil_div(n, global);
    if (options.drop_last && batches == 0)
        throw Error(Exit::data, cat("there are ", n, " pictures to train on, less than one step of ", step),
                    cat("give --batch-size ", std::max<int64_t>(1, n / (options.ranks * options.accumulate)),
                        " or less, or more pictures"));
    image_bytes = options.pictures.image_size * options.pictures.image_size * options.pictures.channels;
    const int64_t images_bytes = align_up(options.batch_size * image_bytes, Arena::alignment);
    const int64_t labels_bytes = align_up(options.batch_size * int64_t{sizeof(int32_t)}, Arena::alignment);
    const int64_t changes_bytes =
        options.changes_apart ? align_up(options.batch_size * int64_t{sizeof(pixel::Changes)}, Arena::alignment) : 0;
    slot_bytes = images_bytes + 2 * labels_bytes + changes_bytes;
    slots.resize(static_cast<size_t>(options.slots > 0 ? std::max(2, options.slots) : 4));
    block = static_cast<char*>(memory.allocate(slot_bytes * static_cast<int64_t>(slots.size())));
    for (size_t i = 0; i < slots.size(); ++i) {
        char* base = block + slot_bytes * static_cast<int64_t>(i);
        slots[i].images = reinterpret_cast<uint8_t*>(base);
        slots[i].labels = reinterpret_cast<int32_t*>(base + images_bytes);
        slots[i].partners = reinterpret_cast<int32_t*>(base + images_bytes + labels_bytes);
        if (options.changes_apart)
            slots[i].changes = reinterpret_cast<pixel::Changes*>(base + images_bytes + 2 * labels_bytes);
        slots[i].places.resize(static_cast<size_t>(options.batch_size));
        slots[i].batch.indices.reserve(static_cast<size_t>(options.batch_size));
    }
    const bool on_device = options.pictures.decode == Decode::device && options.decoders != nullptr;
    const int workers = workers_of(options);
    try {
        for (int i = 0; i < workers; ++i)
            hands.push_back(std::make_unique<Hand>(on_device ? options.decoders->make() : nullptr));
        for (int i = 0; i < workers; ++i)
            threads.emplace_back([this, i] { work(*hands[static_cast<size_t>(i)]); });
    } catch (...) {
        halt();
        memory.release(block, slot_bytes * static_cast<int64_t>(slots.size()));
        throw;
    }
}

Loader::State::~State() {
    halt();
    memory.release(block, slot_bytes * static_cast<int64_t>(slots.size()));
}

void Loader::State::halt() {
    {
        const std::lock_guard<std::mutex> lock(mutex);
        ending = true;
        running = false;
    }
    work_ready.notify_all();
    stopping.notify_all();
    for (std::thread& thread : threads)
        thread.join();
    threads.clear();
}

Range Loader::State::range_of(int64_t batch) const {
    const int64_t n = source.size(), global = options.batch_size * options.ranks;
    const int64_t whole = std::min(global, n - batch * global);  // the last one may be shorter
    const int64_t begin = whole * options.rank / options.ranks, end = whole * (options.rank + 1) / options.ranks;
    return {batch * global + begin, end - begin};
}

int64_t Loader::State::todo_of(int64_t batch) const {
    const int64_t count = range_of(batch).count;
    return count > 0 && options.mix ? count + 1 : count;
}

int64_t Loader::State::allowed_bad() const {
    // A little more, so that 0.29 of 100 is 29.
    return static_cast<int64_t>(options.max_bad * static_cast<double>(source.size()) + 1e-6);
}

void Loader::State::start(int64_t new_epoch, int64_t first_batch) {
    RN50_REQUIRE(first_batch >= 0 && first_batch <= batches, "batch ", first_batch, " of ", batches);
    RN50_REQUIRE(!threads.empty(), "the loader was stopped");
    std::unique_lock<std::mutex> lock(mutex);
    running = false;
    stopping.notify_all();
    all_idle.wait(lock, [this] { return active == 0; });
    epoch = new_epoch;
    *patience.over = false;
    make_order();
    const auto ring = static_cast<int64_t>(slots.size());
    for (Slot& slot : slots)
        slot.todo = 0;
    for (int64_t b = first_batch; b < std::min(batches, first_batch + ring); ++b)
        slots[static_cast<size_t>(b % ring)].todo = todo_of(b);
    read_batch = next_batch = first_batch;
    next_place = 0;
    free_until = first_batch + ring;
    holds_batch = false;
    waited = 0;
    if (pictures_made > 0) rate_before = rate();
    worked = 0;
    pictures_made = 0;
    running = true;
    lock.unlock();
    work_ready.notify_all();
}

void Loader::State::make_order() {
    const int64_t n = source.size();
    if (balanced) {
        order = balanced->epoch(options.seed, epoch);
    } else if (options.shuffle) {
        const std::vector<uint32_t> pictures = epoch_order(n, options.seed, epoch);
        order.resize(pictures.size());
        for (size_t i = 0; i < order.size(); ++i)
            order[i] = {pictures[i], 0};
    } else if (order.empty()) {
        order.resize(static_cast<size_t>(n));
        for (size_t i = 0; i < order.size(); ++i)
            order[i] = {static_cast<uint32_t>(i), 0};
    }
}

void Loader::State::work(Hand& hand) {
    if (options.give_way) {
        // Threads that compute wait for each other at every barrier of OpenMP, so one of them that is preempted holds
        // up all. Loading has whole batches of slack. Without the right to it, all stays as it is.
        const auto self = static_cast<id_t>(syscall(SYS_gettid));
        setpriority(PRIO_PROCESS, self, getpriority(PRIO_PROCESS, self) + 10);
    }
    pthread_setname_np(pthread_self(), "rn50-loader");
    sigset_t all;  // Ctrl-C is for the main thread
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
        work_ready.wait(lock, [this] { return ending || (running && next_batch < std::min(batches, free_until)); });
        if (ending) return;
        const Range range = range_of(next_batch);
        if (next_place >= range.count) {  // nothing (left) in this batch
            ++next_batch;
            next_place = 0;
            continue;
        }
        Slot& slot = slots[static_cast<size_t>(next_batch) % slots.size()];
        const int64_t batch = next_batch, place = next_place++;
        ++active;
        lock.unlock();
        const int64_t declined_before = hand.maker.declined();
        const auto begin = std::chrono::steady_clock::now();
        read_ahead(batch, place);
        fill(slot, place, range.begin + place, hand);
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
        lock.lock();
        worked += took.count();
        ++pictures_made;
        ++decoded.all;
        decoded.declined += hand.maker.declined() - declined_before;
        seen.add(hand.maker.take_seen());
        if (--slot.todo == 1 && options.mix) {  // the last picture is there
            lock.unlock();
            mix(slot, batch, hand);
            lock.lock();
            --slot.todo;
        }
        --active;
        if (slot.todo == 0) batch_ready.notify_one();
        if (active == 0 && !running) all_idle.notify_one();
    }
}

/// Has the system fetch a picture that is due when each worker has made some more, so that a slow disk has many
/// requests at once and a worker finds its picture in memory.
void Loader::State::read_ahead(int64_t batch, int64_t place) const {
    constexpr int64_t pictures_a_worker = 4;
    const int64_t ahead = place + pictures_a_worker * static_cast<int64_t>(threads.size());
    const int64_t later = batch + ahead / options.batch_size, its_place = ahead % options.batch_size;
    if (later >= batches) return;
    const Range range = range_of(later);
    if (its_place >= range.count) return;
    const int64_t index = order[static_cast<size_t>(range.begin + its_place)].picture;
    if (options.cache && options.cache->find(source, index)) return;
    source.prefetch(index);
}

/// Puts the picture at `position` of the epoch's order into a place of the batch, or the next good one after it.
void Loader::State::fill(Slot& slot, int64_t place_index, int64_t position, Hand& hand) {
    Slot::Place& place = slot.places[static_cast<size_t>(place_index)];
    place.index = -1;
    place.bad.clear();
    place.gave_up = false;
    place.failure = nullptr;
    try {
        uint8_t* const dst = slot.images + place_index * image_bytes;
        pixel::Changes* const changes = slot.changes != nullptr ? slot.changes + place_index : nullptr;
        const int64_t n = source.size();
        for (int64_t step = 0; step < n; ++step) {
            const Draw draw = order[static_cast<size_t>((position + step) % n)];
            if (try_picture(draw, dst, changes, place, hand)) {
                place.index = draw.picture;
                slot.labels[place_index] = source.label(draw.picture);
                return;
            }
            if (!options.replace_bad) return;
            if (static_cast<int64_t>(place.bad.size()) > allowed_bad()) break;
        }
        place.gave_up = true;
    } catch (...) {
        place.failure = std::current_exception();
    }
}

bool Loader::State::try_picture(Draw draw, uint8_t* dst, pixel::Changes* changes, Slot::Place& place, Hand& hand) {
    const int64_t index = draw.picture;
    // A picture that comes again within the epoch is another sample.
    const SampleKey key{options.seed, epoch, index | static_cast<int64_t>(draw.repeat) << 32};
    try {
        with_patience(patience,
                      [&] { hand.maker.make(source, index, options.pictures, key, options.cache, dst, changes); });
        return true;
    } catch (const Error& error) {
        const auto* const unread = dynamic_cast<const ReadError*>(&error);
        if (*patience.over) {
            { const std::lock_guard<std::mutex> lock(mutex); }  // whoever is about to pause has looked, or will
            stopping.notify_all();
        }
        if (error.code() != Exit::data || (unread != nullptr && !unread->gone())) throw;
        const std::string name = source.name(index), text = error.what();
        const bool named = text.compare(0, name.size() + 2, name + ": ") == 0;
        place.bad.push_back({index, name, named ? text.substr(name.size() + 2) : text});
        return false;
    }
}

/// A worker's, before it tries again to read. False: nobody waits for the picture any more, or another one could not be
/// read for as long as is tried, which ends the epoch.
bool Loader::State::pause(double seconds) {
    std::unique_lock<std::mutex> lock(mutex);
    return !stopping.wait_for(lock, std::chrono::duration<double>(seconds),
                              [this] { return ending || !running || *patience.over; });
}

void Loader::State::mix(Slot& slot, int64_t batch, Hand& hand) {
    const PictureOptions& pictures = options.pictures;
    slot.mix = draw_mix(options.mix, pictures.image_size, options.seed, epoch, batch);
    apply_mix(slot.mix, slot.images, range_of(batch).count, pictures.image_size, pictures.channels, slot.labels,
              slot.partners, hand.mixing);
}

void Loader::State::note_bad(const Slot::Place& place) {
    for (const BadPicture& picture : place.bad)
        if (bad_indices.insert(picture.index).second) bad.push_back(picture);
    if (place.gave_up || static_cast<int64_t>(bad.size()) > allowed_bad()) throw_too_many_bad(bad);
}

void Loader::State::throw_too_many_bad(const std::vector<BadPicture>& bad_ones) const {
    std::string list;
    for (size_t i = 0; i < bad_ones.size() && i < 3; ++i)
        list += cat(i ? "; " : "", bad_ones[i].name, ": ", bad_ones[i].reason);
    if (bad_ones.size() > 3) list += "; ...";
    throw Error(Exit::data,
                cat(bad_ones.size(), " of ", source.size(), " pictures cannot be used, more than the ",
                    options.max_bad * 100, "% that are allowed: ", list),
                "mend or remove them, or allow more, e.g. --max-bad 0.1");
}

/// Closes the gaps that left-out pictures have made, and shows the slot to the consumer. Null: nothing is left in it.
const Batch* Loader::State::deliver(Slot& slot) {
    Batch& batch = slot.batch;
    batch.indices.clear();
    const int64_t count = range_of(read_batch).count;
    for (int64_t i = 0; i < count; ++i) {
        const Slot::Place& place = slot.places[static_cast<size_t>(i)];
        if (place.failure) std::rethrow_exception(place.failure);
        note_bad(place);
        if (place.index < 0) continue;
        const auto to = static_cast<int64_t>(batch.indices.size());
        if (to != i) {
            std::memcpy(slot.images + to * image_bytes, slot.images + i * image_bytes,
                        static_cast<size_t>(image_bytes));
            slot.labels[to] = slot.labels[i];
        }
        batch.indices.push_back(place.index);
    }
    batch.count = static_cast<int64_t>(batch.indices.size());
    const int64_t size = options.pictures.image_size;
    batch.images = {slot.images, DType::u8, {batch.count, size, size, options.pictures.channels}};
    batch.labels = {slot.labels, DType::i32, {batch.count}};
    if (options.mix) {
        batch.partners = {slot.partners, DType::i32, {batch.count}};
        batch.share = static_cast<float>(slot.mix.share) / static_cast<float>(Mix::whole);
    }
    if (slot.changes != nullptr)
        batch.changes = {slot.changes, DType::u8, {batch.count * int64_t{sizeof(pixel::Changes)}}};
    return batch.count > 0 ? &batch : nullptr;
}

int workers_of(const LoaderOptions& options) {
    return options.workers > 0 ? options.workers : std::min(cores_of_process().usable(), 32);
}

int ring_slots(int64_t batch_bytes) {
    constexpr int64_t enough_bytes = 256'000'000;
    return static_cast<int>(std::clamp<int64_t>(enough_bytes / std::max<int64_t>(batch_bytes, 1), 4, 16));
}

Slot& Loader::State::wait_for(std::unique_lock<std::mutex>& lock, int64_t batch) {
    Slot& slot = slots[static_cast<size_t>(batch) % slots.size()];
    const auto begin = std::chrono::steady_clock::now();
    batch_ready.wait(lock, [&] { return slot.todo == 0; });
    waited += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return slot;
}

Loader::Loader(const Source& source, const LoaderOptions& options, Memory& host_memory)
    : state_(std::make_unique<State>(source, options, host_memory)) {}

Loader::~Loader() = default;

void Loader::start_epoch(int64_t epoch, int64_t first_batch) {
    state_->start(epoch, first_batch);
}

const Batch* Loader::next() {
    State& state = *state_;
    const auto ring = static_cast<int64_t>(state.slots.size());
    for (;;) {
        std::unique_lock<std::mutex> lock(state.mutex);
        if (state.holds_batch) {
            // The slot of the batch before becomes the slot of the one a whole ring later.
            const int64_t later = state.read_batch + ring;
            Slot& slot = state.slots[static_cast<size_t>(state.read_batch % ring)];
            if (later < state.batches) slot.todo = state.todo_of(later);
            state.free_until = later + 1;
            ++state.read_batch;
            state.holds_batch = false;
            state.work_ready.notify_all();
        }
        if (!state.running || state.read_batch >= state.batches) return nullptr;
        Slot& slot = state.wait_for(lock, state.read_batch);
        state.holds_batch = true;
        lock.unlock();
        if (const Batch* batch = state.deliver(slot)) return batch;
    }
}

bool Loader::ready() const {
    State& state = *state_;
    const std::lock_guard<std::mutex> lock(state.mutex);
    const int64_t batch = state.read_batch + (state.holds_batch ? 1 : 0),
                  ring = static_cast<int64_t>(state.slots.size());
    // A slot that is still to be given back belongs to an earlier batch, whatever stands in it.
    if (!state.running || batch >= std::min(state.batches, state.free_until)) return false;
    const Slot& slot = state.slots[static_cast<size_t>(batch % ring)];
    if (slot.todo != 0) return false;
    const auto failed = [](const Slot::Place& place) { return place.failure != nullptr; };
    return std::none_of(slot.places.begin(), slot.places.begin() + state.range_of(batch).count, failed);
}

std::string Loader::wait_for_next() {
    State& state = *state_;
    std::unique_lock<std::mutex> lock(state.mutex);
    const int64_t batch = state.read_batch + (state.holds_batch ? 1 : 0);
    if (!state.running || batch >= state.batches) return "";
    const Slot& slot = state.wait_for(lock, batch);
    for (int64_t i = 0; i < state.range_of(batch).count; ++i) {
        try {
            if (const std::exception_ptr& failure = slot.places[static_cast<size_t>(i)].failure)
                std::rethrow_exception(failure);
        } catch (const ReadError& error) {
            return error.what();
        } catch (...) {  // next() throws it
            return "";
        }
    }
    return "";
}

void Loader::stop() {
    state_->halt();
}

int64_t Loader::batches_per_epoch() const {
    return state_->batches;
}
double Loader::wait_seconds() const {
    return state_->waited;
}
double Loader::pictures_per_worker_s() const {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->rate_before > 0 ? state_->rate_before : state_->rate();
}
Loader::Decoded Loader::decoded() const {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->decoded;
}
PicturesSeen Loader::seen() const {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    return state_->seen;
}
const std::vector<BadPicture>& Loader::bad() const {
    return state_->bad;
}

void Loader::require_few(const std::vector<BadPicture>& bad_of_ranks) const {
    if (static_cast<int64_t>(bad_of_ranks.size()) > state_->allowed_bad()) state_->throw_too_many_bad(bad_of_ranks);
}
int64_t Loader::memory_bytes() const {
    return state_->slot_bytes * static_cast<int64_t>(state_->slots.size());
}
int Loader::workers() const {
    return static_cast<int>(state_->threads.size());
}

}  // namespace rn50
