"""The impure rim around the engine: lease, leader, standby, commands, and the process that holds them."""
