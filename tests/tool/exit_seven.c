/* A program whose exit status says that it ran. */
int main(void) { return 7; }
