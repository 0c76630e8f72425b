//! Bytes of connections that stay open: an iterator over the sockets that have storage, run by the probe every few seconds. It sees the
//! sockets of all network namespaces.
