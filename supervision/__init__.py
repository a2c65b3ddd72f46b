"""What Visavis decides, and what its words mean.

A *person* has a name, an e-mail address, a Matrix ID, a language and a time zone, and roles.
A *pair* is one supervisor and one supervisee; it owns one Matrix *room*.
*Availability* is when a supervisor can be booked; a *slot* is a bookable time computed from it, never stored.
An *appointment* is a booked slot; its *holds* take the time of each person, and its *revision* counts every
change that a calendar entry shows.
A *notification* tells one person one thing by one channel; the table of them is the outbox.
The *journal* remembers which Matrix events were acted on; an *audit entry* says who did what, when, from where.
"""
