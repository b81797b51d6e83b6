"""Rules of money: charges, plans, accounts, slips and Pix codes. Pure: no clock, no I/O, integers and Decimal only."""
