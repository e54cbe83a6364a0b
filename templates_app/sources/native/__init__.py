"""The native engine: reads images itself, without any other program.

``registry``   a registry, spoken to in the distribution protocol
``limits``     what one image may cost
``entry``      one entry of a layer's archive, as the reader gives it to the model
``operations`` what the model has the writer do
"""
