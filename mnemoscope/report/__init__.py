"""From estimates to what people read: figures and one self-contained page.  Nothing is measured here."""
