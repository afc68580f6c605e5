<?php

namespace App\Models;

class Appointment extends CompanyRecord
{
}
