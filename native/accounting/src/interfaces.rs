//! Traffic, from `/proc/PID/net/dev`: the interfaces of that process's network namespace.

use bulkhead_protocol::InterfaceUse;
use std::collections::BTreeMap;

/// More interfaces than a sandbox has, and a bound for what a table may hold.
const INTERFACES_MAX: usize = 64;

pub(crate) fn read_interfaces(pid: u32) -> BTreeMap<String, InterfaceUse> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default())
}

fn parse(table: &str) -> BTreeMap<String, InterfaceUse> {
    let lines = table.lines().filter_map(|line| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> = counters.split_whitespace().map(|text| text.parse().unwrap_or(0)).collect();
        let at = |column: usize| counters.get(column).copied();
        let traffic = InterfaceUse {
            rx_bytes: at(0)?,
            rx_packets: at(1)?,
            rx_errors: at(2)?,
            rx_dropped: at(3)?,
            tx_bytes: at(8)?,
            tx_packets: at(9)?,
            tx_errors: at(10)?,
            tx_dropped: at(11)?,
        };
        Some((name.trim().to_owned(), traffic))
    });
    lines.filter(|(name, _)| name != "lo").take(INTERFACES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_left_out() {
        let table = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n  \
            eth0:    1000      10    1    2    0     0          0         0     2000      20    3    4    0     0       0          0\n";
        let found = parse(table);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["eth0"]);
        assert_eq!(
            found["eth0"],
            InterfaceUse {
                rx_bytes: 1000,
                rx_packets: 10,
                rx_errors: 1,
                rx_dropped: 2,
                tx_bytes: 2000,
                tx_packets: 20,
                tx_errors: 3,
                tx_dropped: 4
            }
        );
    }
}
