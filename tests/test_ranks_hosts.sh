#!/bin/bash
# Ranks on two or three hosts, which here are network namespaces with cables to one switch: they train as on one host, and
# a cable that is cut, or a port that a firewall closes, ends the run with 6 in the right words.
#   tests/test_ranks_hosts.sh PATH/rn50
if [ "${RN50_IN_NAMESPACE:-}" != 1 ]; then
    skip() {
        echo "ok (left out: $1)"
        exit 0
    }
    command -v ip >/dev/null && command -v unshare >/dev/null || skip "needs ip and unshare"
    unshare -Urmn ip link add v0 type veth peer name v1 2>/dev/null || skip "this system gives no network namespaces"
    RN50_IN_NAMESPACE=1 exec unshare -Urmn --propagation private --kill-child bash "$0" "$@"
fi
source "$(dirname "$0")/script.sh" "$1"
draw=$(find "$(dirname "$program")" -maxdepth 2 -name make_defects -type f | head -1)
unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT "${!SLURM_@}" "${!OMPI_@}"

run train nowhere --device cpu --ranks 2
if is 4 && says "need Gloo"; then
    echo "ok (left out: needs Gloo)"
    exit 0
fi

mount -t tmpfs none /run && mkdir -p /run/netns || exit 1
ip link set lo up
ip link add switch type bridge && ip link set switch up
number=0
for host in a b c; do
    ip netns add $host
    ip link add to-$host type veth peer name cable netns $host
    ip link set to-$host master switch up
    ip -n $host link set lo up
    ip -n $host link set cable up
    ip -n $host addr add 10.77.0.$((number += 1))/24 dev cable
done

"$draw" --out data --size 64 --count 80 >out 2>err || { echo "FAIL the demo set cannot be drawn"; cat err; exit 1; }
rm data/rn50.toml
tiny=(--device cpu --threads 1 --workers 1 --model resnet18 --image-size 32 --batch-size 8 --optimizer sgd --lr 0.001 --seed 3)
long=("${tiny[@]}" --epochs 500 --peer-timeout 3)

ranks=2
address=10.77.0.1
# on HOST RANK ARGUMENTS...: rank RANK of $ranks on host-HOST in the background; leaves its words in RANK.err
on() {
    local host=$1 rank=$2
    shift 2
    # shellcheck disable=SC2016  # expanded by the inner shell
    RANK=$rank WORLD_SIZE=$ranks LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 MASTER_ADDR=$address MASTER_PORT=29500 RN50_TOKEN=word \
        ip netns exec "$host" unshare -um bash -c \
        '[ ! -e hosts.$0 ] || mount --bind hosts.$0 /etc/hosts; hostname host-$0; exec "$@"' "$host" \
        timeout 100 "$program" train data "$@" >"$rank.out" 2>"$rank.err" &
    pids[rank]=$!
}
both() { # ARGUMENTS...
    on a 0 "$@"
    on b 1 "$@"
}
# Waits for all; sets codes, and took in seconds since `started`.
ended() {
    codes=()
    for pid in "${pids[@]}"; do
        wait "$pid"
        codes+=($?)
    done
    took=$((SECONDS - started))
    code="${codes[*]}"
    cat ?.err >err
}
codes_are() { [ "${codes[*]}" = "$*" ]; }
until_saved() { # OUT: the run's first epoch is over
    for _ in $(seq 300); do
        [ -s "$1/state.safetensors" ] && return
        sleep 0.1
    done
}
losses() { grep '"event":"step"' "$1/metrics.jsonl" | sed 's/.*"loss":\([0-9.e+-]*\).*/\1/'; }

both "${tiny[@]}" --epochs 2 --warmup-epochs 1 --out two
started=$SECONDS
ended
check "two hosts train together" codes_are 0 0
run train data "${tiny[@]}" --epochs 2 --warmup-epochs 1 --ranks 2 --out one
check "with the losses of two ranks on one host" eval 'is 0 && [ -n "$(losses one)" ] && [ "$(losses one)" = "$(losses two)" ]'

# Debian's /etc/hosts lets a host's own name lead to its loopback: rank 0 reaches itself by an address that no other host
# comes back by. With these addresses it is the other host that Gloo lets connect.
ip -n a addr add 192.168.77.1/24 dev cable
ip -n b addr add 192.168.77.2/24 dev cable
printf '127.0.0.1 localhost\n127.0.1.1 first\n' >hosts.a
printf '127.0.0.1 localhost\n192.168.77.1 first\n' >hosts.b
named=("${tiny[@]}" --epochs 1 --peer-timeout 10 --out named)
address=first
on a 0 "${named[@]}"
on b 1 "${named[@]}"
ended
check "a name that leads to the loopback on rank 0's own host" codes_are 0 0
ip -n a addr add fd00:77::1/64 dev cable nodad
ip -n b addr add fd00:77::2/64 dev cable nodad
address=fd00:77::1
on a 0 "${tiny[@]}" --epochs 1 --peer-timeout 10 --out six
on b 1 "${tiny[@]}" --epochs 1 --peer-timeout 10 --out six
ended
check "two hosts by IPv6" codes_are 0 0
address=10.77.0.1

both "${long[@]}" --out cut
until_saved cut
ip -n b link set cable down
started=$SECONDS
ended
check "a cut cable ends both with 6" codes_are 6 6
check "it is noticed within the time-out" [ "$took" -le 10 ]
check "rank 0 names the other's host" has 0.err "rank 1 on host-b" "was lost" "--resume auto"
check "rank 1 says that it has lost rank 0" has 1.err "rank 0" "10.77.0.1" "was lost"
ip -n b link set cable up
steps=$(losses cut | wc -l)
both --resume auto --out cut --max-steps "$((steps + 3))"
started=$SECONDS
ended
check "the run goes on from its last checkpoint once the cable is back" codes_are 0 0

# Two of three lose each other, and both still reach rank 0: no heartbeat tells of that.
ranks=3
both "${long[@]}" --batch-size 4 --hang-timeout 5 --out part
on c 2 "${long[@]}" --batch-size 4 --hang-timeout 5 --out part
until_saved part
ip -n b route add blackhole 10.77.0.3/32
ip -n c route add blackhole 10.77.0.2/32
started=$SECONDS
ended
check "a cut between ranks 1 and 2 alone ends all with 6" codes_are 6 6 6
check "it is noticed soon after the time-out" [ "$took" -le 40 ]
check "all say who waits where" eval 'for r in 0 1 2; do has $r.err "no rank has come further for" "host-a" "host-b" "host-c"; done'
ranks=2
unset "pids[2]"
rm 2.err

# Packets that are not answered, as by a firewall: a route that leads nowhere.
ip -n b route add blackhole 10.77.0.1/32
both "${long[@]}" --out wall
started=$SECONDS
ended
check "hosts that do not reach each other end with 6" codes_are 6 6
check "rank 0 says who did not come" has 0.err "rank 1 of 2 did not arrive"
check "rank 1 says where it knocked" has 1.err "10.77.0.1:29501"
exit $failed
