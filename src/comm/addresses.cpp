#include "comm/addresses.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "comm/place.h"

namespace rn50 {

namespace {

constexpr int backlog = 4096;  // the ranks of a large run all come at once; Linux takes the less of it and somaxconn

/// Room for an address of either version, which the calls take as the general one.
union Address {
    sockaddr any;
    sockaddr_in v4;
    sockaddr_in6 v6;
};

Address address_of(int socket) {
    Address here{};
    socklen_t size = sizeof here;
    if (getsockname(socket, &here.any, &size) != 0) here.any.sa_family = AF_UNSPEC;
    return here;
}

/// -1 with errno where it cannot be.
int try_to_listen(const Address& here, socklen_t size) {
    const int listener = socket(here.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0) return -1;
    const int yes = 1, no = 0;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (here.any.sa_family == AF_INET6) setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    if (bind(listener, &here.any, size) == 0 && listen(listener, backlog) == 0) return listener;
    const int error = errno;
    close(listener);
    errno = error;
    return -1;
}

int try_to_listen_v4(uint32_t address, int port) {
    Address here{};
    here.v4.sin_family = AF_INET;
    here.v4.sin_port = htons(static_cast<uint16_t>(port));
    here.v4.sin_addr.s_addr = htonl(address);
    return try_to_listen(here, sizeof here.v4);
}

int try_to_listen_v6(const in6_addr& address, int port) {
    Address here{};
    here.v6.sin6_family = AF_INET6;
    here.v6.sin6_port = htons(static_cast<uint16_t>(port));
    here.v6.sin6_addr = address;
    return try_to_listen(here, sizeof here.v6);
}

}  // namespace

std::string own_address(int socket) {
    const Address here = address_of(socket);
    char text[INET6_ADDRSTRLEN] = "";
    if (here.any.sa_family == AF_INET) inet_ntop(AF_INET, &here.v4.sin_addr, text, sizeof text);
    if (here.any.sa_family != AF_INET6) return text;
    if (IN6_IS_ADDR_V4MAPPED(&here.v6.sin6_addr))
        inet_ntop(AF_INET, &here.v6.sin6_addr.s6_addr[12], text, sizeof text);
    else
        inet_ntop(AF_INET6, &here.v6.sin6_addr, text, sizeof text);
    return text;
}

int listen_on(const std::string& address, int port) {
    int listener = -1;
    if (address == "::1") {
        listener = try_to_listen_v6(in6addr_loopback, port);
    } else if (is_loopback(address)) {
        listener = try_to_listen_v4(INADDR_LOOPBACK, port);
    } else {
        listener = try_to_listen_v6(in6addr_any, port);
        // A system without IPv6.
        if (listener < 0 && errno != EADDRINUSE && errno != EACCES) listener = try_to_listen_v4(INADDR_ANY, port);
    }
    if (listener < 0)
        throw Error(Exit::device, with_errno(cat("rank 0 cannot listen on port ", port)),
                    "another program or run has it: set MASTER_PORT to the number below a free port, or, with --ranks "
                    "and --gpus, which choose one by themselves, start again");
    return listener;
}

int port_of(int socket) {
    const Address here = address_of(socket);
    return ntohs(here.any.sa_family == AF_INET6 ? here.v6.sin6_port : here.v4.sin_port);
}

}  // namespace rn50
