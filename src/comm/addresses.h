// Addresses of sockets, of both versions of IP.
#pragma once

#include <string>

namespace rn50 {

/// This machine's address on a connected socket, as text; one of IPv4 within IPv6 as IPv4; "" where the system does not
/// tell.
std::string own_address(int socket);

/// A socket that listens on `port` (0: any free one) of all interfaces and both versions of IP, or of the loopback
/// alone where `address` is one of it. Throws Error(Exit::device) when the port is taken.
int listen_on(const std::string& address, int port);

/// The port of a socket that listens.
int port_of(int socket);

}  // namespace rn50
