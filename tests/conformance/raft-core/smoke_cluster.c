int smoke_a;
