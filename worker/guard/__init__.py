"""The guarded call: plugins that report how every request ended and move on when a service fails."""
