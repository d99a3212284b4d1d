/* Stands in for the preloaded library: being loaded is all it does. */
int zps_stub_loaded;
