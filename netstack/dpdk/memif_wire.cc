// The memif wire.
#include "netstack/dpdk/opening.h"
#include <sys/socket.h>
extern "C" {
struct rte_eth_dev;
int memif_connect_client(rte_eth_dev* dev);
int zps_memif_connect_client(rte_eth_dev* dev) { return memif_connect_client(dev); }
ssize_t zps_memif_recvmsg(int fd, msghdr* m, int f) { return recvmsg(fd, m, f); }
ssize_t zps_memif_sendmsg(int fd, msghdr* m, int f) { return sendmsg(fd, m, f); }
}
namespace netstack {
base::Result<Wire*> open_memif(const Opening&) noexcept { return base::make_error("memif"); }
}  // namespace netstack
