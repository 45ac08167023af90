"Ctrl-C reaches what the tests start, also where the tests themselves run in the background and ignore it"
import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)
